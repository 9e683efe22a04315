"""Masks hold for every write along a path, and what writes keep out is counted by reason."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_world import HW, batched, flat_scene, sideways_and_back, tiny_world

from mirage_jax import world_model
from mirage_jax.cli.main import cli
from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.mask_files import Masks
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.chunk_pictures import ChunkPictures
from mirage_jax.rollout.decode import decode_latents
from mirage_jax.rollout.hub_masks import choose_labels
from mirage_jax.rollout.kept_out import count_write
from mirage_jax.rollout.loop import RolloutConfig, rollout, start_rollout
from mirage_jax.rollout.masks import decoded_masks, fit_masks, masked_start, path_masks
from mirage_jax.rollout.paths import ResolvedPath
from mirage_jax.rollout.scene import fit_scene, save_scene
from mirage_jax.rollout.world import save_world
from mirage_jax.world_model import FAR

FRAMES, WALL = 17, 4.0
PATH = sideways_and_back(FRAMES, reach=6.0)
GRID, CELLS = (4, 6), 4 * 6


def model(chunk, observation, inputs, noise):
    latents = np.array(noise)
    latents[:, 0] = inputs.first
    return latents


def wall(chunk, observation, latents):
    depth = np.full(latents.shape[:-1], WALL, np.float32)
    return depth, np.ones(depth.shape, bool)


def run(scene, masks=None):
    """Return the state of the start and of each chunk."""
    world = tiny_world()
    keep = None if masks is None else path_masks(world.spec, masks[None])
    given = Providers(latents=model, depth=wall, keep=keep)
    start, config = stack_starts([scene]), RolloutConfig()
    states = [start_rollout(world, start, batched(PATH), config)]
    walked = rollout(world, start, batched(PATH), config, providers=given, state=states[0])
    return [*states, *(result.state for result in walked)]


def test_each_write_leaves_out_what_its_own_frames_mask_says():
    masks = np.ones((FRAMES, *HW), bool)
    masks[4:, :16] = False  # the upper half, from the first write of the path on
    free, held = run(flat_scene()), run(flat_scene(), masks)
    assert int(held[0].memory.count[0]) == int(free[0].memory.count[0]) == CELLS
    grown = [int(s.memory.count[0]) for s in held]
    assert grown == [
        CELLS,
        CELLS + CELLS,
        CELLS + 2 * CELLS,
    ]  # two latent frames a chunk, half each
    assert [s.counts.of(0)["mask"] for s in held] == [0, CELLS, CELLS]
    assert [s.counts.of(0)["mask"] for s in free] == [0, 0, 0]


def test_one_mask_holds_for_every_write_the_start_included():
    mask = np.ones((1, *HW), bool)
    mask[0, :, :8] = False
    states = run(masked_start(flat_scene(), mask), mask)
    per_frame = CELLS - 4
    assert [int(s.memory.count[0]) for s in states] == [per_frame * n for n in (1, 3, 5)]
    assert [s.counts.of(0)["mask"] for s in states] == [4, 8, 8]


def test_a_model_is_shown_what_is_written_and_its_masks_hold():
    seen = []

    class Upper:
        name = note = "upper"

        def keep(self, frames):
            seen.append(frames)
            found = np.ones(frames.shape[:3], bool)
            found[:, :16] = False
            return found

    world, start = tiny_world(), stack_starts([flat_scene()])
    begun = start_rollout(world, start, batched(PATH), RolloutConfig())
    keep = decoded_masks(ChunkPictures(world, begun.latents), Upper())
    given = Providers(latents=model, depth=wall, keep=keep)
    walked = rollout(world, start, batched(PATH), RolloutConfig(), providers=given, state=begun)
    states = [result.state for result in walked]
    assert [s.counts.of(0)["mask"] for s in states] == [CELLS, CELLS]
    video = decode_latents(world, states[-1].latents)[0]
    # The first chunk shows the start picture too, of which nothing is written again.
    shown = np.concatenate(seen)
    np.testing.assert_array_equal(shown[-4:], video[4::4])


@pytest.mark.parametrize(
    ("names", "moving", "sky"),
    [
        (["road", "person", "rider", "sky", "bicycle", "traffic light"], (1, 2, 4), (3,)),
        (["sky-other-merged", "teddy bear", "bear", "bus stop", "Ground Animal"], (2, 4), (0,)),
        (["carpet", "person, individual, someone", "Bike Lane", "Other Vehicle"], (1, 3), ()),
    ],
)
def test_labels_that_name_what_moves_are_found_whole(names, moving, sky):
    assert choose_labels(dict(enumerate(names))) == (moving, sky)


def test_labels_can_be_chosen_and_unknown_ones_are_refused():
    names = {0: "wall", 1: "person, someone", 2: "sky"}
    assert choose_labels(names, ["Someone", " wall "]) == ((0, 1), ())
    assert choose_labels(names, ["sky"]) == ((), (2,))
    with pytest.raises(ValueError, match="got 'persn', no label of it; did you mean 'person'"):
        choose_labels(names, ["persn"])
    with pytest.raises(ValueError, match="no label of the model is known to move: got wall, door"):
        choose_labels({0: "wall", 1: "door"})


def test_worlds_whose_masks_hold_for_the_start_alone_take_no_others():
    spec = tiny_world().spec
    writing = dataclasses.replace(spec.chunk.write, masks="start")
    released = dataclasses.replace(spec, chunk=dataclasses.replace(spec.chunk, write=writing))
    assert path_masks(released, np.zeros((1, 1, *HW), bool)) is None


def write(depth, keep, edge_window=0, **writing):
    """Write frames [t, h, w] into an empty memory; return it and the counts."""
    spec = tiny_world().spec
    changed = dataclasses.replace(spec.chunk.write, **writing)
    spec = dataclasses.replace(
        spec,
        chunk=dataclasses.replace(spec.chunk, write=changed),
        memory=dataclasses.replace(spec.memory, edge_window=edge_window),
    )
    latents = np.zeros((1, *depth.shape, spec.memory.channels), np.float32)
    camera = world_model.grid_camera(flat_scene().camera, HW, GRID)
    cameras = Camera(*(np.broadcast_to(leaf, (1, len(depth), *leaf.shape)) for leaf in camera))
    memory, report = jax.jit(functools.partial(world_model.remember, spec))(
        world_model.empty_memory(spec, 1), latents, depth[None], keep[None], cameras, 0
    )
    everything = np.ones(len(depth), bool)
    return memory, count_write(spec, depth[None], keep[None], everything, report).of(0)


def positions(memory):
    kept = np.asarray(memory.order[0]).reshape(-1) < np.iinfo(np.int32).max
    return np.asarray(memory.positions[0]).swapaxes(-1, -2).reshape(-1, 3)[kept]


def test_every_cell_of_a_write_is_counted_once_by_what_became_of_it():
    depth, keep = np.full((2, *GRID), WALL, np.float32), np.ones((2, *GRID), bool)
    depth[:, 0, 0], depth[:, 0, 1] = 0.0, np.nan
    depth[:, 1], keep[:, 0, :4] = FAR, False
    depth[1, 2, 2] = 1.0  # the other frame saw something behind it
    memory, counts = write(depth, keep, sky="unknown")
    assert counts["cells"] == 2 * CELLS
    # Of four masked cells of a frame two are of unknown depth.
    assert [counts[name] for name in ("invalid_depth", "mask", "sky")] == [4, 4, 12]
    assert (counts["edge"], counts["moved"]) == (0, 1)
    assert counts["written"] == len(positions(memory)) == 2 * CELLS - 21
    assert counts.pop("cells") == sum(counts.values())
    assert write(depth, keep, edge_window=3, sky="unknown")[1]["edge"] > 0


def test_what_lies_beyond_a_distance_is_remembered_as_sky():
    depth, keep = np.full((1, *GRID), WALL, np.float32), np.ones((1, *GRID), bool)
    depth[:, :2] = 60.0
    memory, counts = write(depth, keep, sky_beyond=50.0)
    assert counts["sky"] == 0
    np.testing.assert_array_equal(np.sort(positions(memory)[:, 2]), 12 * [WALL] + 12 * [FAR])


def test_masks_follow_the_crop_of_the_scene_and_other_sizes_are_refused():
    spec = tiny_world().spec
    large = flat_scene(hw=(64, 120))  # cropped to 64x96, then halved
    keep = np.zeros((1, 64, 120), bool)
    keep[:, :, 12:60] = True
    walked = ResolvedPath(PATH, ())
    fitted = fit_masks(Masks(keep, ""), large, walked, spec)
    assert fitted.shape == (1, *HW)
    np.testing.assert_array_equal(fitted[0].any(0), np.arange(48) < 24)
    assert fit_scene(large, HW).image.shape[:2] == HW
    with pytest.raises(ValueError, match="got masks of 30x48, expected 64x120 .* or 32x48"):
        fit_masks(Masks(keep[:, :30, :48], ""), large, walked, spec)
    with pytest.raises(ValueError, match="got 5 masks for 17 frames"):
        fit_masks(Masks(np.ones((5, *HW), bool), ""), large, walked, spec)
    order = np.minimum(np.arange(FRAMES), 12)
    numbered = np.zeros((13, *HW), bool)
    numbered[12, 0, 0] = True
    again = fit_masks(Masks(numbered, ""), large, ResolvedPath(PATH, (), order), spec)
    np.testing.assert_array_equal(again[:, 0, 0], order == 12)


def test_generate_takes_masks_and_says_what_each_write_kept_out(tmp_path):
    save_world(tmp_path / "world", tiny_world())
    save_scene(tmp_path / "scene", flat_scene())
    moving = np.zeros((9, *HW), np.uint8)
    moving[:, :8] = 255
    np.save(tmp_path / "masks.npy", moving)

    def generate(*more):
        fixed = ["--weights", tmp_path / "world", "--scene", tmp_path / "scene", "--path", "w*8"]
        fixed += ["--no-compare", "--mask", tmp_path / "masks.npy", "--out", tmp_path / "out"]
        return CliRunner().invoke(cli, ["generate", *map(str, [*fixed, *more])])

    result = generate()
    assert result.exit_code == 2
    assert "--mask-as moving: every value but 0 moves, 75.0%" in result.output
    result = generate("--mask-as", "moving", "--sky", "far")
    assert result.exit_code == 0, result.output
    assert "start picture: kept_out=mask:6" in result.output
    assert "kept_out=mask:12" in result.output
    writes = json.loads((tmp_path / "out" / "metrics.json").read_text())["memory"]["writes"]
    assert writes["start"]["mask"] == 6
    assert [chunk["cells"] for chunk in writes["chunks"]] == [48]
    assert writes["chunks"][0]["mask"] == 12
