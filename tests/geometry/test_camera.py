"""Cameras: inverses, change of frame, resize and crop, against float64 oracles."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import (
    Camera,
    camera_center,
    compose,
    concatenate_cameras,
    crop_intrinsics,
    index_camera,
    invert_rigid,
    relative_to,
    rescale_intrinsics,
    stack_cameras,
    world_to_cam,
)


def random_cameras(count: int, seed: int = 0) -> Camera:
    rng = np.random.default_rng(seed)
    cam_to_world = np.tile(np.eye(4), (count, 1, 1))
    cam_to_world[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    cam_to_world[:, :3, 3] = rng.normal(size=(count, 3)) * 5
    intrinsics = np.array([[60.0, 0.3, 47.0], [0.0, 66.0, 35.0], [0.0, 0.0, 1.0]])
    return Camera(cam_to_world, np.tile(intrinsics, (count, 1, 1)))


def seen_at(camera: Camera, point: np.ndarray) -> np.ndarray:
    """Project one world point the textbook way, with numpy.linalg."""
    local = np.linalg.inv(camera.cam_to_world) @ np.append(point, 1.0)
    pixel = camera.intrinsics @ local[:3]
    return pixel[:2] / pixel[2]


def test_world_to_cam_is_the_matrix_inverse():
    camera = random_cameras(20)
    expected = np.linalg.inv(camera.cam_to_world)
    np.testing.assert_allclose(world_to_cam(camera), expected, atol=1e-12)
    single = invert_rigid(camera.cam_to_world[3])
    np.testing.assert_allclose(single, expected[3], atol=1e-12)


def test_compose_is_the_matrix_product_over_batches():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(3, 1, 4, 4)), rng.normal(size=(5, 4, 4))
    np.testing.assert_allclose(compose(first, second), first @ second, atol=1e-12)


def test_a_camera_relative_to_itself_is_the_identity():
    camera = random_cameras(8)
    same = relative_to(camera, camera)
    np.testing.assert_allclose(same.cam_to_world, np.tile(np.eye(4), (8, 1, 1)), atol=1e-12)


def test_relative_cameras_keep_their_motion_in_any_world():
    camera, mover = random_cameras(8), random_cameras(1, seed=7).cam_to_world[0]
    moved = Camera(mover @ camera.cam_to_world, camera.intrinsics)
    here = relative_to(camera, index_camera(camera, 2)).cam_to_world
    there = relative_to(moved, index_camera(moved, 2)).cam_to_world
    np.testing.assert_allclose(here, there, atol=1e-11)


@pytest.mark.parametrize("to_hw", [(12, 16), (96, 40), (480, 640)])
def test_rescaled_intrinsics_keep_every_ray(to_hw):
    camera = index_camera(random_cameras(1), 0)
    point = camera.cam_to_world @ np.array([0.7, -0.4, 3.0, 1.0])
    small = camera._replace(intrinsics=rescale_intrinsics(camera.intrinsics, (72, 96), to_hw))
    expected = seen_at(camera, point[:3]) * [to_hw[1] / 96, to_hw[0] / 72]
    np.testing.assert_allclose(seen_at(small, point[:3]), expected, rtol=1e-12)


def test_rescaling_knows_the_half_pixel():
    # The mean position of a 4x4 block of pixel centres is the centre of the pixel it shrinks to.
    intrinsics = np.array([[50.0, 0, 30.0], [0, 50.0, 20.0], [0, 0, 1.0]])
    small = rescale_intrinsics(intrinsics, (40, 60), (10, 15))
    block = np.mean(np.arange(8, 12) + 0.5)
    assert (block - 30.0) / 50.0 == pytest.approx((2.5 - small[0, 2]) / small[0, 0])


def test_cropped_intrinsics_shift_every_pixel():
    camera = index_camera(random_cameras(1), 0)
    point = (camera.cam_to_world @ np.array([0.7, -0.4, 3.0, 1.0]))[:3]
    cut = camera._replace(intrinsics=crop_intrinsics(camera.intrinsics, top=5, left=9))
    np.testing.assert_allclose(seen_at(cut, point), seen_at(camera, point) - [9, 5], atol=1e-10)


def test_index_stack_and_concatenate_undo_each_other():
    camera = random_cameras(6)
    stacked = stack_cameras([index_camera(camera, i) for i in range(6)])
    joined = concatenate_cameras([index_camera(camera, slice(0, 2)), camera])
    np.testing.assert_array_equal(stacked.cam_to_world, camera.cam_to_world)
    np.testing.assert_array_equal(camera_center(joined)[2:], camera.cam_to_world[:, :3, 3])
