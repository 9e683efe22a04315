"""How cells lie in the world: on planes exactly, at edges from the surface's own side."""

import jax
import jax.numpy as jnp
import numpy as np
from memory.slow_memory import make_camera, room_depth

from mirage_jax.geometry.cell_axes import cell_axes, inverse_depth_slopes
from mirage_jax.geometry.projection import project, unproject

HW = (24, 32)


def test_a_small_step_along_an_axis_moves_the_picture_by_as_much_and_stays_on_the_plane():
    camera = make_camera([(0.3, 0.1, -0.4, 0.5)], HW)
    skewed = camera.intrinsics.copy()
    skewed[0, 0, 1] = 2.0
    camera = camera._replace(intrinsics=skewed)
    depth = room_depth(camera, HW)
    axes, points = cell_axes(depth, camera), unproject(depth, camera)
    for k, moved in ((0, (1, 0)), (1, (0, 1))):
        ends = points + 1e-3 * depth[..., None] * axes[..., k]
        before, _ = project(points.reshape(1, -1, 3), camera)
        after, _ = project(ends.reshape(1, -1, 3), camera)
        np.testing.assert_allclose((after - before)[0] / 1e-3, [moved] * 768, atol=0.02)
    # Cells that see floor or wall with all their neighbours: the steps stay on that plane.
    floor = np.abs(points[0, ..., 1] - 1) < 1e-3
    wall = np.abs(points[0, ..., 2] - 9) < 1e-3
    for seen, normal in ((floor, 1), (wall, 2)):
        inner = seen[1:-1, 1:-1] & seen[:-2, 1:-1] & seen[2:, 1:-1]
        inner &= seen[1:-1, :-2] & seen[1:-1, 2:]
        assert inner.sum() > 10
        assert np.abs(axes[0, 1:-1, 1:-1][inner][:, normal]).max() < 2e-3


def test_on_a_depth_edge_a_cell_takes_the_slope_of_its_own_surface():
    inverse = np.concatenate([0.5 + 0.01 * np.arange(6), 0.1 + 0.002 * np.arange(6)])
    depth = np.tile(1.0 / inverse, (4, 1)).astype(np.float32)
    slopes = inverse_depth_slopes(depth) / depth[..., None]
    expected = np.repeat([0.01, 0.002], 6)
    np.testing.assert_allclose(slopes[:, :, 0], np.tile(expected, (4, 1)), rtol=1e-3)
    np.testing.assert_allclose(slopes[:, :, 1], 0.0, atol=1e-6)


def test_unknown_depth_is_no_neighbour_and_both_kinds_of_arrays_agree():
    depth = (1.0 / (0.5 + 0.02 * np.arange(8, dtype=np.float32)))[None].repeat(3, 0)
    depth[:, 3] = 0.0
    depth[:, 5] = np.nan
    slopes = inverse_depth_slopes(depth)
    expected = 0.02 * np.where(depth > 0, depth, 0.0)
    # Between two unknown cells nothing is known of the slope either.
    expected[:, 4] = 0.0
    np.testing.assert_allclose(slopes[..., 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jit(inverse_depth_slopes)(jnp.asarray(depth)), slopes, atol=1e-6)
