"""Camera errors beside jaxlie and scipy, and cameras found in pictures of a known scene."""

import cv2
import jaxlie
import numpy as np
import pytest
from scipy import ndimage, optimize

from mirage_jax.eval.metrics.camera import best_scale, path_error, rotation_degrees, worldscore
from mirage_jax.eval.metrics.camera_from_pictures import Known, find_camera, picture_features
from mirage_jax.geometry.camera import Camera


def _path(seed, frames=6, turn=0.3):
    rng = np.random.default_rng(seed)
    tangents = np.concatenate(
        [rng.normal(size=(frames, 3)), turn * rng.normal(size=(frames, 3))], axis=1
    )
    return np.stack([np.asarray(jaxlie.SE3.exp(t).as_matrix(), float) for t in tangents])


def test_rotation_error_is_the_length_of_the_logarithm():
    a, b = _path(0), _path(1)
    for x, y, degrees in zip(a, b, rotation_degrees(a, b), strict=True):
        relative = jaxlie.SO3.from_matrix(x[:3, :3].T @ y[:3, :3])
        assert np.degrees(np.linalg.norm(relative.log())) == pytest.approx(degrees, abs=2e-3)


def test_scale_is_where_a_general_minimiser_finds_it():
    rng = np.random.default_rng(0)
    true, got = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    got += 0.4 * true
    found = optimize.minimize_scalar(lambda c: np.linalg.norm(true - c * got, axis=1).sum())
    assert best_scale(true, got) == pytest.approx(found.x, abs=1e-5)
    assert best_scale(true, np.zeros_like(true)) == 1.0


def test_path_errors_do_not_ask_where_the_world_begins_and_scale_only_when_told():
    true = _path(2)
    moved = _path(3)[0] @ true
    assert path_error(true, moved).rotation == pytest.approx(0.0, abs=1e-4)
    assert path_error(true, moved).translation == pytest.approx(0.0, abs=1e-6)
    larger = true.copy()
    larger[:, :3, 3] *= 2.5
    away = path_error(true, larger)
    lengths = np.linalg.norm(true[1:, :3, 3] - true[0, :3, 3], axis=1)
    assert away.translation == pytest.approx(1.5 * lengths.mean())
    aligned = path_error(true, larger, "worldscore")
    assert (aligned.scale, aligned.translation) == pytest.approx((0.4, 0.0), abs=1e-6)


@pytest.mark.parametrize(
    ("rotation", "translation", "score"),
    [(0, 0, 1), (15, 0, 0), (7.5, 0.25, 0.5), (3, 0.4, 0.4), (90, 9, 0), (np.nan, 0, 0)],
)
def test_worldscore_maps_errors_linearly_and_takes_the_geometric_mean(rotation, translation, score):
    assert worldscore(rotation, translation) == pytest.approx(score)


def _room():
    """A textured floor and wall, seen by two cameras, drawn by exact rays."""
    noise = np.random.default_rng(0).normal(size=(400, 400, 3))
    texture = ndimage.gaussian_filter(noise, (1.2, 1.2, 0), mode="wrap")
    texture = np.clip(127 + 60 * texture / texture.std(), 0, 255)
    matrix = np.array([[64.0, 0, 64], [0, 64, 48], [0, 0, 1]])

    def see(camera):
        # Four rays a pixel side.
        v, u = (np.mgrid[: 96 * 4, : 128 * 4] + 0.5) / 4
        rays = np.stack([(u - 64) / 64, (v - 48) / 64, np.ones_like(u)], -1) @ camera[:3, :3].T
        center = camera[:3, 3]
        with np.errstate(divide="ignore"):
            wall, floor = (4.0 - center[2]) / rays[..., 2], (1.0 - center[1]) / rays[..., 1]
        wall, floor = (np.where(t > 0, t, np.inf) for t in (wall, floor))
        depth = np.minimum(wall, floor)
        point = center + depth[..., None] * rays
        across = np.where(wall < floor, point[..., 1], point[..., 2] + 3.0)
        where = np.stack([across * 40 + 200, point[..., 0] * 40 + 200])
        image = np.stack(
            [
                ndimage.map_coordinates(texture[..., c], where, order=1, mode="wrap")
                for c in (0, 1, 2)
            ],
            axis=-1,
        )
        image = image.reshape(96, 4, 128, 4, 3).mean(axis=(1, 3))
        return np.clip(image, 0, 255).astype(np.uint8), depth[2::4, 2::4].copy()

    return see, matrix


def test_the_camera_of_a_picture_is_found_and_blank_or_foreign_ones_have_none():
    see, matrix = _room()
    start = np.eye(4)
    image, depth = see(start)
    usable = np.ones(depth.shape, bool)
    known = Known(image, depth, Camera(start, matrix), usable)

    same = find_camera(image, known, matrix)
    assert rotation_degrees(same.cam_to_world, start) < 1e-3
    assert np.linalg.norm(same.cam_to_world[:3, 3]) < 1e-4

    moved = np.eye(4)
    moved[:3, :3] = cv2.Rodrigues(np.array([0.02, 0.15, 0.01]))[0]
    moved[:3, 3] = [0.3, -0.1, 0.25]
    found = find_camera(see(moved)[0], known, matrix)
    assert rotation_degrees(found.cam_to_world, moved) < 0.3
    assert np.linalg.norm(found.cam_to_world[:3, 3] - moved[:3, 3]) < 0.03
    before = find_camera(see(moved)[0], known._replace(features=picture_features(image)), matrix)
    np.testing.assert_array_equal(before.cam_to_world, found.cam_to_world)
    # Shown the first frame instead, the error is the whole way, not zero.
    assert rotation_degrees(find_camera(image, known, matrix).cam_to_world, moved) > 8

    for picture in (
        np.full_like(image, 90),
        np.random.default_rng(1).integers(0, 256, image.shape, np.uint8),
    ):
        assert np.isnan(find_camera(picture, known, matrix).cam_to_world).all()
    blank = np.full_like(image, 90)
    nothing = known._replace(image=blank, features=picture_features(blank))
    assert len(nothing.features.spots) == 0 == find_camera(image, nothing, matrix).points
    hidden = known._replace(usable=np.zeros_like(usable))
    assert find_camera(image, hidden, matrix).points == 0
