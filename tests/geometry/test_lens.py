"""Lenses against OpenCV's projection, and what is refused."""

import cv2
import numpy as np
import pytest

from mirage_jax.geometry.lens import Lens, straight_intrinsics, straighten

HW = (90, 120)
LENSES = {
    "barrel": Lens("opencv", (-0.28, 0.07, 0.001, -0.002)),
    "pincushion": Lens("opencv", (0.2, 0.05, -0.003, 0.001, 0.01)),
    "rational": Lens("opencv", (0.3, -0.1, 0.001, 0.0005, 0.02, 0.45, -0.05, 0.01)),
    "fisheye": Lens("fisheye", (0.05, -0.01, 0.003, -0.001)),
}


def intrinsics(rng: np.random.Generator) -> np.ndarray:
    fx, fy = rng.uniform(60, 110, 2)
    return np.array([[fx, 0, rng.uniform(54, 66)], [0, fy, rng.uniform(40, 50)], [0, 0, 1]])


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("seed", range(4))
def test_a_straight_pixel_comes_from_where_opencv_sees_its_ray(name: str, seed: int):
    lens, matrix = LENSES[name], intrinsics(np.random.default_rng(seed))
    straight = straight_intrinsics(lens, matrix, HW)
    way = straighten(lens, matrix, straight, HW)
    column, row = np.meshgrid(np.arange(HW[1]) + 0.5, np.arange(HW[0]) + 0.5)
    bent = np.stack([way.columns, way.rows], -1).reshape(-1, 1, 2).astype(np.float64)
    undo = cv2.fisheye.undistortPoints if lens.model == "fisheye" else cv2.undistortPoints
    # The inverse, found by iteration, is another routine of OpenCV than the projection.
    more = {"criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-12)}
    back = undo(bent, matrix, np.array(lens.coefficients), P=straight, **more)[:, 0]
    np.testing.assert_allclose(back, np.stack([column, row], -1).reshape(-1, 2), atol=2e-3)


@pytest.mark.parametrize("name", LENSES)
def test_the_straight_view_fills_its_frame_and_is_the_largest_that_does(name: str):
    lens, matrix = LENSES[name], intrinsics(np.random.default_rng(7))
    straight = straight_intrinsics(lens, matrix, HW)
    seen = []
    for zoom in (1.0, 0.995):
        wider = straight * np.array([[zoom, zoom, 1], [zoom, zoom, 1], [1, 1, 1]])
        corners = np.array([[x, y] for x in (0.0, HW[1] / 2, HW[1]) for y in (0.0, 45, HW[0])])
        rays = np.concatenate([corners, np.ones((9, 1))], 1) @ np.linalg.inv(wider).T
        at = lens.pixels(rays, matrix)
        seen.append(((at >= -1e-3) & (at <= np.array([HW[1], HW[0]]) + 1e-3)).all())
    assert seen[0]
    assert not seen[1]


def test_no_coefficients_change_nothing():
    matrix, lens = intrinsics(np.random.default_rng(3)), Lens("opencv", (0.0, 0.0, 0.0, 0.0))
    straight = straight_intrinsics(lens, matrix, HW)
    np.testing.assert_allclose(straight, matrix, rtol=1e-9)
    picture = np.random.default_rng(0).integers(0, 256, (*HW, 3)).astype(np.uint8)
    way = straighten(lens, matrix, straight, HW)
    np.testing.assert_array_equal(way.colors(picture), picture)
    np.testing.assert_array_equal(way.nearest(picture[..., 0] > 99), picture[..., 0] > 99)


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        (("opencv", (-9.0, 0.0, 0.0, 0.0)), "no straight view|fold"),
        (("opencv", (0.0, 0.0, 5.0, 5.0)), "no straight view|fold"),
        (("opencv", (1.0, 2.0)), "expected opencv with 4, 5 or 8"),
        (("fisheye", (1.0, 2.0, 3.0, float("nan"))), "finite"),
        (("thin", (0.0,) * 4), "expected opencv"),
    ],
)
def test_impossible_lenses_are_refused(lens, message):
    matrix = np.array([[50.0, 0, 60], [0, 50.0, 45], [0, 0, 1]])

    def use() -> None:
        made = Lens(*lens)
        straighten(made, matrix, straight_intrinsics(made, matrix, HW), HW)

    with pytest.raises(ValueError, match=message):
        use()
