"""Projection: round trips, rays, and agreement of NumPy, JAX and float64."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, relative_to, rescale_intrinsics, world_to_cam
from mirage_jax.geometry.projection import cell_centers, plucker_rays, project, unproject

HW = (9, 13)


def scene(count: int = 3, dtype=np.float64) -> tuple[np.ndarray, Camera]:
    rng = np.random.default_rng(5)
    cam_to_world = np.tile(np.eye(4), (count, 1, 1))
    cam_to_world[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    cam_to_world[:, :3, 3] = rng.normal(size=(count, 3)) * 20
    intrinsics = np.array([[7.0, 0.2, 6.1], [0, 7.5, 4.4], [0, 0, 1]])
    depth = rng.uniform(0.5, 30, size=(count, *HW))
    camera = Camera(cam_to_world.astype(dtype), np.tile(intrinsics, (count, 1, 1)).astype(dtype))
    return depth.astype(dtype), camera


@pytest.mark.parametrize("half_cell", [True, False])
def test_projecting_an_unprojected_grid_gives_its_cells_back(half_cell):
    depth, camera = scene()
    points = unproject(depth, camera, half_cell=half_cell).reshape(3, -1, 3)
    uv, z = project(points, camera)
    expected = np.broadcast_to(cell_centers(HW, half_cell).reshape(-1, 2), uv.shape)
    np.testing.assert_allclose(uv, expected, atol=1e-10)
    np.testing.assert_allclose(z, depth.reshape(3, -1), rtol=1e-12)


def test_unproject_follows_the_textbook_formula():
    depth, camera = scene()
    points = unproject(depth, camera)
    pixel = np.array([4 + 0.5, 7 + 0.5, 1.0])
    local = depth[1, 7, 4] * np.linalg.inv(camera.intrinsics[1]) @ pixel
    expected = camera.cam_to_world[1] @ np.append(local, 1.0)
    np.testing.assert_allclose(points[1, 7, 4], expected[:3], atol=1e-10)


def test_float32_stays_within_a_thousandth_of_a_cell():
    depth, camera = scene()
    depth32, camera32 = scene(dtype=np.float32)
    uv, _ = project(unproject(depth, camera).reshape(3, -1, 3), camera)
    uv32, _ = project(unproject(depth32, camera32).reshape(3, -1, 3), camera32)
    assert uv32.dtype == np.float32
    assert np.abs(uv - uv32).max() < 1e-3


def test_half_precision_is_widened():
    depth, camera = scene(dtype=np.float16)
    assert unproject(depth, camera).dtype == np.float32
    bf16 = unproject(jnp.asarray(depth, jnp.bfloat16), camera)
    assert bf16.dtype == jnp.float32


def test_points_are_shared_by_all_cameras():
    depth, camera = scene(4)
    points = unproject(depth, camera)[0].reshape(-1, 3)
    uv, z = project(points, camera)
    assert uv.shape == (4, len(points), 2)
    assert z.shape == (4, len(points))
    local = points @ world_to_cam(camera)[2, :3, :3].T + world_to_cam(camera)[2, :3, 3]
    np.testing.assert_allclose(z[2], local[:, 2], atol=1e-10)


def test_points_behind_or_in_the_camera_stay_finite():
    camera = Camera(np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32))
    points = np.array([[1, 2, -3], [0, 0, 0], [1, 1, 1e-30]], dtype=np.float32)
    uv, z = project(points, camera)
    assert np.isfinite(uv[:2]).all()
    np.testing.assert_array_equal(z > 0, [False, False, True])


def test_gradients_are_finite_behind_the_camera():
    camera = Camera(jnp.eye(4), jnp.eye(3))
    points = jnp.array([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]])

    def loss(points):
        uv, z = project(points, camera)
        return jnp.sum(jnp.where(z[:, None] > 0, uv, 0.0))

    assert np.isfinite(jax.grad(loss)(points)).all()


def test_plucker_rays_pass_through_camera_and_cell():
    depth, camera = scene()
    rays = plucker_rays(camera, HW)
    direction, moment = rays[..., :3], rays[..., 3:]
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.sum(direction * moment, axis=-1), 0.0, atol=1e-10)
    # Any point of the ray has the same moment.
    points = unproject(depth, camera)
    np.testing.assert_allclose(np.cross(points, direction), moment, atol=1e-9)


def test_plucker_rays_of_the_reference_start_at_the_origin():
    _, camera = scene()
    rays = plucker_rays(relative_to(camera, camera), HW)
    np.testing.assert_allclose(rays[..., 3:], 0.0, atol=1e-12)


def test_latent_grid_points_lie_on_the_full_resolution_rays():
    _, camera = scene()
    small = camera._replace(intrinsics=rescale_intrinsics(camera.intrinsics, (8, 12), (2, 3)))
    fine = plucker_rays(camera, (8, 12))[..., :3]
    coarse = plucker_rays(small, (2, 3))[..., :3]
    # The centre of a 4x4 block lies between its middle pixels.
    middle = fine[:, 1, 1] + fine[:, 1, 2] + fine[:, 2, 1] + fine[:, 2, 2]
    middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
    np.testing.assert_allclose(middle, coarse[:, 0, 0], atol=2e-3)


def test_jax_agrees_with_numpy_under_jit():
    depth, camera = scene(dtype=np.float32)

    @jax.jit
    def round_trip(depth, camera):
        points = unproject(depth, camera)
        return points, *project(points.reshape(3, -1, 3), camera), plucker_rays(camera, HW)

    points = unproject(depth, camera)
    expected = (points, *project(points.reshape(3, -1, 3), camera), plucker_rays(camera, HW))
    for ours, theirs in zip(round_trip(depth, camera), expected, strict=True):
        assert isinstance(ours, jax.Array)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-4)


def test_traced_depth_works_with_a_numpy_camera():
    depth, camera = scene(dtype=np.float32)
    points = jax.jit(lambda depth: unproject(depth, camera))(depth)
    np.testing.assert_allclose(points, unproject(depth, camera), rtol=1e-5, atol=1e-4)


def test_importing_geometry_does_not_import_jax():
    code = (
        "import sys, mirage_jax.geometry, mirage_jax.geometry.camera_files, "
        "mirage_jax.geometry.keys, mirage_jax.geometry.projection, mirage_jax.geometry.depth\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
