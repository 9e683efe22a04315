"""Depth and masks on the latent grid, and which depth may be trusted."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.depth import (
    depth_scale,
    edge_validity,
    resize_depth,
    resize_mask,
    resize_validity,
)
from mirage_jax.geometry.projection import camera_rays, cell_centers, unproject


def slanted_plane(hw: tuple[int, int], normal: tuple[float, float, float]) -> np.ndarray:
    """Depth of the plane normal . x = 1 seen by a camera of 90 degrees."""
    half = hw[1] / 2
    intrinsics = np.array([[half, 0, half], [0, half, hw[0] / 2], [0, 0, 1]])
    rays = camera_rays(Camera(np.eye(4), intrinsics), hw)
    inverse = rays @ np.array(normal)
    return np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 0)


@pytest.mark.parametrize("hw", [(12, 16), (5, 7), (30, 45), (24, 32)])
def test_resized_depth_equals_opencv_bilinear(hw):
    depth = np.random.default_rng(0).uniform(1, 9, size=(24, 32)).astype(np.float32)
    expected = cv2.resize(depth, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize_depth(depth, hw), expected, rtol=1e-5)


def test_resizing_inverse_depth_of_a_plane_commutes_with_rescaling_the_camera():
    inverse = 1 / slanted_plane((32, 48), (0.1, 0.3, 0.4)).clip(0.1)
    half = 24.0
    intrinsics = np.array([[half, 0, half], [0, half, 16.0], [0, 0, 1]])
    small = rescale_intrinsics(intrinsics, (32, 48), (8, 12))
    rays = camera_rays(Camera(np.eye(4), small), (8, 12))
    expected = rays @ np.array([0.1, 0.3, 0.4])
    inside = (slice(5, 8), slice(2, 10))
    np.testing.assert_allclose(resize_depth(inverse, (8, 12))[inside], expected[inside], rtol=1e-6)


def test_resized_mask_takes_the_pixel_at_the_floor():
    mask = np.random.default_rng(1).random((2, 24, 36)) > 0.5
    for hw in [(6, 9), (12, 18), (5, 7), (48, 72)]:
        rows = [int(np.floor(i * 24 / hw[0])) for i in range(hw[0])]
        columns = [int(np.floor(j * 36 / hw[1])) for j in range(hw[1])]
        np.testing.assert_array_equal(resize_mask(mask, hw), mask[:, rows][:, :, columns])


def test_valid_cells_are_those_that_bad_pixels_cannot_change():
    rng = np.random.default_rng(2)
    valid = rng.random((24, 32)) > 0.1
    depth = rng.uniform(1, 2, size=(24, 32))
    for hw in [(6, 8), (24, 32), (7, 9), (3, 4)]:
        disturbed = resize_depth(np.where(valid, depth, 1e9), hw)
        untouched = np.abs(disturbed - resize_depth(depth, hw)) < 1.0
        np.testing.assert_array_equal(resize_validity(valid, hw), untouched)


def test_golden_lift_is_reproduced_with_the_release_conventions(golden_folder):
    memory = np.load(golden_folder / "memory.npz")
    clip = np.load(golden_folder / "geometry.npz")
    depth = resize_depth(memory["depth0"], (4, 6))
    intrinsics = rescale_intrinsics(clip["intrinsics"][0], (64, 96), (4, 6))
    camera = Camera(clip["poses_c2w"][0], intrinsics)
    points = unproject(depth, camera, half_cell=False)
    # In this file, other than in geometry.npz, True marks what is to be left out.
    valid = (depth > 0) & ~resize_mask(memory["mask0"], (4, 6))
    np.testing.assert_allclose(intrinsics, memory["K_latent"], rtol=1e-6)
    np.testing.assert_allclose(points.reshape(-1, 3), memory["points0"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(valid.reshape(-1), memory["valid0"])


@pytest.mark.parametrize("normal", [(0, 0, 0.2), (0, 0.7, 0.02), (0.5, 0.3, 0.2), (-0.6, 0, 0.1)])
def test_edge_validity_accepts_planes_of_any_slant(normal):
    depth = slanted_plane((48, 64), normal)
    known = depth > 0
    depth = np.where(depth < 200, depth, 0)
    valid = edge_validity(depth)
    # The horizon and its neighbours are unknown or at a step; everything well before it passes.
    eroded = cv2.erode((depth > 0).astype(np.uint8), np.ones((5, 5)), borderValue=1) > 0
    assert valid[eroded].all()
    assert not valid[~known].any()


@pytest.mark.parametrize("step", [1.2, 1.5, 4.0])
def test_edge_validity_refuses_the_neighbourhood_of_a_depth_step(step):
    depth = np.full((20, 30), 3.0, np.float32)
    depth[:, 15:] *= step
    valid = edge_validity(depth)
    assert not valid[:, 13:17].any()
    assert valid[:, :12].all()
    assert valid[:, 18:].all()


def test_edge_validity_tolerates_creases_and_small_noise():
    floor, wall = slanted_plane((48, 64), (0, 0.7, 0.001)), np.full((48, 64), 4.0)
    room = np.where((floor > 0) & (floor < wall), floor, wall)
    noise = np.random.default_rng(3).uniform(0.99, 1.01, size=room.shape)
    assert edge_validity(room).mean() > 0.99
    assert edge_validity(room * noise).mean() > 0.99


def test_edge_validity_refuses_unknown_pixels_and_their_windows():
    depth = np.full((12, 12), 2.0, np.float32)
    depth[6, 6], depth[0, 0], depth[11, 0] = 0.0, np.nan, np.inf
    valid = edge_validity(depth, window=3)
    expected = np.ones((12, 12), bool)
    expected[5:8, 5:8] = expected[:2, :2] = expected[10:, :2] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(edge_validity(depth, window=1), np.isfinite(depth) & (depth > 0))


def test_edge_validity_agrees_between_numpy_and_jax():
    rng = np.random.default_rng(4)
    depth = rng.uniform(1, 1.2, size=(2, 16, 24)).astype(np.float32)
    depth[:, 4:9, 5:11] = 3.0
    ours = jax.jit(edge_validity)(jnp.asarray(depth))
    np.testing.assert_array_equal(ours, edge_validity(depth))


@pytest.mark.parametrize("window", [0, 2, -3, 99])
def test_edge_validity_names_a_bad_window(window):
    with pytest.raises(ValueError, match=rf"window must be odd .* got {window}"):
        edge_validity(np.ones((8, 8)), window=window)


def test_resizing_is_the_same_in_jax():
    rng = np.random.default_rng(6)
    depth, mask = rng.uniform(size=(2, 24, 32)).astype(np.float32), rng.random((2, 24, 32)) > 0.5

    @jax.jit
    def resize(depth, mask):
        return resize_depth(depth, (6, 8)), resize_mask(mask, (6, 8)), resize_validity(mask, (6, 8))

    ours = resize(depth, mask)
    np.testing.assert_allclose(ours[0], resize_depth(depth, (6, 8)), rtol=1e-6)
    np.testing.assert_array_equal(ours[1], resize_mask(mask, (6, 8)))
    np.testing.assert_array_equal(ours[2], resize_validity(mask, (6, 8)))


def test_depth_scale_is_the_median_of_what_is_known():
    assert depth_scale(np.array([[0.0, 2.0], [4.0, np.nan]])) == 3.0
    with pytest.raises(ValueError, match="no known value"):
        depth_scale(np.zeros((3, 3)))


def test_cell_centers_are_halves():
    centers = cell_centers((2, 3))
    np.testing.assert_array_equal(centers[1, 2], [2.5, 1.5])
    np.testing.assert_array_equal(cell_centers((2, 3), half_cell=False)[1, 2], [2, 1])
