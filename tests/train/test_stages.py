"""The three stages on a procedural room: each overfits it, with latents encoded once."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from mirage_jax.distributed.mesh import MeshConfig, abstract_mesh
from mirage_jax.models import functional, pca
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import config as config_lib
from mirage_jax.train import latent_files, stages, start
from mirage_jax.train import latents as latents_lib
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.depth_stage import DepthObjective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.read_stage import ReadObjective
from mirage_jax.train.state import new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.scores import ValidationWindows, validation_windows

CONFIG = Path(__file__).parents[2] / "configs" / "procedural.py"
FAST = {"learning_rate": 1e-2, "warmup_steps": 1, "batch": 4, "ema_decay": 0.5}


@functools.cache
def world():
    overrides = {"data.num_clips": 2, "codec.width": 0, "data.clip_frames": 25}
    overrides |= {"chunk.latent_frames": 3, "chunk.preceding": 1, "sampling.steps": 1}
    overrides |= {"denoiser.layers": 1}
    overrides |= {
        f"{s}_train.{k}": v for s in ("depth", "denoiser", "read") for k, v in FAST.items()
    }
    return config_lib.replace(config_lib.load(str(CONFIG)), overrides)


@functools.cache
def clips():
    return stages.open_split(world().data, "train")


@functools.cache
def codec():
    config = world().codec
    params = functional.init(config, key_for(0, 0, Purpose.INIT_CODEC))
    frames = np.stack([clip["rgb"] for clip in clips()])
    return latents_lib.CodecWeights(config, pca.fit(config, params, frames), "digest")


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return latent_files.encode_split(codec(), clips(), tmp_path_factory.mktemp("latents"))


def overfit(objective, steps):
    """Train on one batch; return the parameters, and first and last metrics."""
    params, fixed = objective.init()
    optimizer = make_optimizer(objective.stage, params)
    state = jax.device_put(new_state(params, optimizer), jax.devices()[0])
    step = make_step(objective.loss, optimizer, objective.stage, seed=0)
    batch, seen = objective.batch(0), []
    for _ in range(steps):
        state, metrics = step(state, fixed, batch)
        seen.append({name: float(value) for name, value in metrics.items() if not value.ndim})
    assert step._cache_size() == 1
    assert not any(metrics["skipped"] for metrics in seen)
    return state.ema, seen[0], seen[-1]


def test_latents_are_encoded_once_and_again_only_for_another_codec(tmp_path, latents):
    first = latent_files.encode_split(codec(), clips(), tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("clip_*")}
    second = latent_files.encode_split(codec(), clips(), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("clip_*")} == written
    for name, array in second._asdict().items():
        np.testing.assert_array_equal(array, getattr(first, name))
    latent_files.encode_split(dataclasses.replace(codec(), digest="other"), clips(), tmp_path)
    assert all(path.stat().st_mtime_ns != time for path, time in written.items())


def test_latents_read_from_disk_are_those_in_memory(tmp_path, latents):
    stored = latent_files.encode_split(codec(), clips(), tmp_path, ram_bytes=0)
    assert isinstance(stored, latent_files.StoredLatents)
    for index in range(latents.clips):
        for one, other in zip(stored.clip(index), latents.clip(index), strict=True):
            np.testing.assert_array_equal(one, other)


def test_latents_are_those_of_the_clip_forwards_and_backwards(latents):
    truth = np.stack([clip["rgb"] for clip in clips()]).astype(np.float32) / 127.5 - 1.0
    for way, video in enumerate((truth, truth[:, ::-1])):
        frames = latents_lib.decode_pictures(codec(), latents.video[:, 0, way])
        expected = functional.apply(codec().config, codec().params, np.ascontiguousarray(video))
        np.testing.assert_allclose(frames, np.clip(expected, -1, 1), atol=0.02)


def test_latents_carry_the_cameras_of_their_frames_and_do_not_keep_what_moves(latents):
    stride = world().codec.temporal_stride
    poses = np.stack([clip["cam_to_world"][::stride] for clip in clips()])
    np.testing.assert_allclose(latents.cam_to_world[:, 0], poses, atol=1e-6)
    moving = np.stack([clip["moving"][::stride] for clip in clips()])
    cells = moving.reshape(*moving.shape[:2], 4, 8, 6, 8).mean(axis=(3, 5))
    assert (cells > 0.5).any()
    assert not latents.keep[:, 0][cells > 0.5].any()
    assert latents.keep.mean() > 0.5


def test_the_denoiser_overfits_a_room_and_writes_its_scores_and_pictures(latents, tmp_path):
    # One clip gives windows of one kind: compiling the other takes longer than all else here.
    windows = validation_windows(latents, clips()[:1], world().chunk, 2)
    objective = DenoiserObjective(world(), codec(), latents, windows)
    params, first, last = overfit(objective, steps=60)
    assert last["error_visible"] < 0.7 * first["filled_visible"]
    assert last["error_hidden"] < 0.9 * first["filled_hidden"]
    scores = objective.validate(params, {}, 60, tmp_path)
    assert all(np.isfinite(score) for score in scores.values())
    made = ("psnr_sample", "psnr_one_step", "psnr_base", "psnr_filled")
    assert scores["psnr_ceiling"] > max(scores[name] for name in made)
    assert (tmp_path / "denoiser_0000060.png").stat().st_size > 1000


def test_the_depth_head_overfits_a_room(latents, tmp_path):
    windows = validation_windows(latents, clips(), world().chunk, 2)
    objective = DepthObjective(world(), latents, windows)
    params, first, last = overfit(objective, steps=60)
    assert last["log_error"] < 0.5 * first["log_error"]
    scores = objective.validate(params, {}, 60, tmp_path)
    assert scores["log_error"] < first["log_error"]
    assert list(tmp_path.glob("depth_*.png"))


def test_the_learned_read_overfits_a_room_and_goes_on_from_what_it_left(latents, tmp_path):
    # One clip gives windows of one kind: compiling the other takes longer than all else here.
    windows = validation_windows(latents, clips()[:1], world().chunk, 2)
    objective = ReadObjective(world(), codec(), latents, windows)
    params, first, last = overfit(objective, steps=60)
    assert first["read_visible"] == pytest.approx(first["filled_visible"], rel=1e-4)
    assert last["read_visible"] < 0.8 * first["filled_visible"]
    assert last["detail_visible"] < 0.95 * first["detail_visible"]
    scores = objective.validate(params, {}, 60, tmp_path)
    assert scores["psnr_ceiling"] > scores["psnr_read"]
    assert (tmp_path / "read_0000060.png").stat().st_size > 1000
    assert start.given_read(world(), [tmp_path]) is None
    objective.export(params, {}, 60, tmp_path)
    again = ReadObjective(
        world(), codec(), latents, windows, start.given_read(world(), [tmp_path / "no", tmp_path])
    )
    jax.tree.map(np.testing.assert_array_equal, again.init()[0], params)
    assert not again.draws


def test_a_stage_without_the_codec_before_it_says_which_command_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="--stage codec"):
        stages.make_objective(world(), "denoiser", tmp_path, lambda line: None)


def test_chunks_of_a_kind_that_devices_cannot_divide_are_named(latents):
    config = config_lib.replace(world(), {"denoiser_train.windows.first_fraction": 0.25})
    objective = DenoiserObjective(config, codec(), latents, ValidationWindows([], [], [], 1))
    arguments = (*objective.init(), objective.batch(0), jax.random.split(jax.random.key(0), 4))
    with (
        jax.sharding.use_abstract_mesh(abstract_mesh(MeshConfig(fsdp=2), 2)),
        pytest.raises(ValueError, match="first chunks of a batch of 4 .* is 1, expected a multip"),
    ):
        jax.eval_shape(objective.loss, *arguments)
