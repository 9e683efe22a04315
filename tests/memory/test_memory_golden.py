"""The memory under the release's conventions against what the release computed.

`memory.npz` and `memory_dense.npz` are outputs of the released system on one thread;
`memory_cameras.npz` holds the depths and cameras of the box room they were made from. Reads must be
exact but for cells that some projection reaches within 1e-4 of their edge.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
from memory.slow_memory import slow_cells

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.depth import resize_depth, resize_mask
from mirage_jax.memory import read, state, write

fast_read = jax.jit(read.read, static_argnums=(2, 3))
fast_write = jax.jit(write.write, static_argnums=2)
unproject_rows = jax.jit(write.unproject_rows, static_argnums=4)
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def sparse():
    arrays, scene = np.load(GOLDEN / "memory.npz"), np.load(GOLDEN / "memory_cameras.npz")
    frames = scene["frames"].tolist()
    hw = arrays["latents"].shape[2:]
    size = scene["depths"].shape[1:]

    def camera(wanted):
        rows = [frames.index(i) for i in wanted]
        matrix = rescale_intrinsics(scene["intrinsics"][rows], size, hw)
        return Camera(scene["poses_c2w"][rows], matrix)

    np.testing.assert_allclose(camera([0]).intrinsics[0], arrays["K_latent"], rtol=1e-6)
    depth = scene["depths"][[frames.index(i) for i in arrays["idx"]]].astype(np.float32)
    depth[0] = arrays["depth0"]
    keep = np.ones(depth.shape, bool)
    keep[0] = ~arrays["mask0"]  # the release masks moving things with True
    latents = arrays["latents"].transpose(1, 2, 3, 0)
    config = state.release_config(capacity=96, channels=48)
    rows = unproject_rows(
        latents, resize_depth(depth, hw), resize_mask(keep, hw), camera(arrays["idx"]), config, 0
    )
    return arrays, camera(arrays["views"]), hw, config, rows


def assert_read_is_golden(memory, camera, hw, config, tokens, mask):
    found = fast_read(memory, camera, hw, config)
    unsure = np.stack(
        [slow_cells(memory, camera, i, hw, half_cell=False)[2] for i in range(len(mask))]
    )
    assert unsure.mean() < 0.02
    np.testing.assert_array_equal(np.asarray(found.visibility)[~unsure], mask[~unsure])
    got = np.asarray(found.tokens)
    np.testing.assert_array_equal(got[~unsure], tokens.transpose(0, 2, 3, 1)[~unsure])


def test_unprojected_rows_match_the_release(sparse):
    arrays, _, _, _, rows = sparse
    np.testing.assert_allclose(rows.positions[:24], arrays["points0"], atol=2e-6)
    np.testing.assert_array_equal(rows.keep[:24], arrays["valid0"])
    np.testing.assert_allclose(rows.positions, arrays["points1"], atol=2e-6)
    np.testing.assert_array_equal(rows.keep, arrays["valid1"])
    np.testing.assert_array_equal(rows.tokens, arrays["features1"])


def test_reads_before_and_after_an_update_match_the_release(sparse):
    arrays, camera, hw, config, rows = sparse
    first, later = jax.tree.map(lambda x: x[:24], rows), jax.tree.map(lambda x: x[24:], rows)
    memory, report = fast_write(state.empty(config), first, config)
    assert int(report.written) == arrays["valid0"].sum()
    golden = arrays["read_init"], arrays["readmask_init"]
    assert_read_is_golden(memory, camera, hw, config, *golden)
    memory, report = fast_write(memory, later, config)
    assert int(memory.count) == arrays["valid1"].sum()
    golden = arrays["read_updated"], arrays["readmask_updated"]
    assert_read_is_golden(memory, camera, hw, config, *golden)


def test_dense_reads_match_the_release():
    arrays = np.load(GOLDEN / "memory_dense.npz")
    latents = arrays["latents"].astype(np.float32).transpose(0, 2, 3, 1)
    hw = latents.shape[1:3]
    matrix = rescale_intrinsics(arrays["K"], arrays["depths"].shape[1:], hw)

    def camera(frames):
        return Camera(arrays["poses"][frames], np.tile(matrix, (len(frames), 1, 1)))

    config = state.release_config(int(arrays["n_points"]), latents.shape[-1])
    depth = resize_depth(arrays["depths"].astype(np.float32), hw)
    keep = np.ones(depth.shape, bool)
    rows = unproject_rows(latents, depth, keep, camera(arrays["write_idx"]), config, 0)
    memory, report = fast_write(state.empty(config), rows, config)
    assert int(report.written) == config.capacity
    golden = arrays["read"].astype(np.float32), arrays["mask"]
    assert_read_is_golden(memory, camera(arrays["views"]), hw, config, *golden)
