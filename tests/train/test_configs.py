"""Every config file builds at full size without computing anything, and every key is read."""

import ast
import dataclasses
import functools
import types
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blank_latents import blank_latents

from mirage_jax.config import to_dict
from mirage_jax.models import functional
from mirage_jax.models.config import release_chunk
from mirage_jax.train import config as config_lib
from mirage_jax.train.codec_stage import CodecObjective
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.depth_stage import DepthObjective
from mirage_jax.train.latents import CodecWeights
from mirage_jax.train.read_stage import ReadObjective
from mirage_jax.train.windows.scores import ValidationWindows

ROOT = Path(__file__).parents[2]
DOOM = ["tiny", "base", "wan21", "wan22"]
FILES = [*(f"configs/doom.py:{variant}" for variant in DOOM), "configs/procedural.py"]
NOTHING = ValidationWindows([], [], [], 1)


def load(name):
    file, _, variant = name.partition(":")
    return config_lib.load(f"{ROOT / file}:{variant}" if variant else str(ROOT / file))


def abstract_loss(objective, params, batch):
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), objective.stage.batch))
    return jax.eval_shape(objective.loss, params, {}, batch, keys)


@pytest.mark.parametrize("name", FILES)
def test_every_stage_of_a_config_file_builds_abstractly(name):
    world = load(name)
    codec_params = functional.abstract_params(world.codec)
    stage = world.codec_train
    crop = (stage.batch, stage.crop_frames, stage.crop_height, stage.crop_width, 3)
    objective = object.__new__(CodecObjective)
    objective.codec, objective.stage = world.codec, stage
    video = jax.ShapeDtypeStruct(crop, jnp.uint8)
    losses = [abstract_loss(objective, codec_params, {"video": video})]

    latents = blank_latents(world)
    depth = DepthObjective(world, latents, NOTHING)
    params = functional.abstract_params(world.depth_head)
    losses.append(abstract_loss(depth, params, depth.batch(0)))

    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), codec_params)
    weights = CodecWeights(world.codec, zeros, "")
    denoiser = DenoiserObjective(world, weights, latents, NOTHING)
    params = {"denoiser": functional.abstract_params(world.denoiser)}
    if world.learned_read is not None:
        params["learned_read"] = functional.abstract_params(world.learned_read)
    losses.append(abstract_loss(denoiser, params, denoiser.batch(0)))
    stages = [world.codec_train, world.depth_train, world.denoiser_train]
    if world.learned_read is not None and world.learned_read.corrects:
        read = ReadObjective(world, weights, latents, NOTHING)
        losses.append(abstract_loss(read, params["learned_read"], read.batch(0)))
        stages.append(world.read_train)
    for stage, (rows, metrics) in zip(stages, losses, strict=True):
        assert rows.shape == (stage.batch,)
        assert all(value.shape == () for value in metrics.values())


def config_classes(cls, found=None):
    found = set() if found is None else found
    if cls in found or not dataclasses.is_dataclass(cls):
        return found
    found.add(cls)
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and not isinstance(part, types.GenericAlias):
                config_classes(part, found)
    return found


@functools.cache
def attributes_read() -> frozenset[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "mirage_jax").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    read = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    # `getattr(config, name)` over a list of literal names reads them too.
    return frozenset(read)


def test_every_key_of_the_world_config_is_read_somewhere():
    unread = [
        f"{cls.__name__}.{field.name}"
        for cls in config_classes(config_lib.WorldConfig)
        for field in dataclasses.fields(cls)
        if field.name not in attributes_read()
    ]
    assert not unread


def test_an_unknown_key_names_the_nearest_one():
    values = to_dict(load("configs/procedural.py"))
    values["codec_train"]["learning_rte"] = 1.0
    with pytest.raises(ValueError, match="learning_rte'; did you mean 'learning_rate'"):
        config_lib.from_dict(config_lib.WorldConfig, values)


def test_sizes_that_do_not_fit_each_other_are_refused_by_name():
    world = load("configs/procedural.py")
    with pytest.raises(ValueError, match=r"memory.channels: got 7, expected codec.latent_channels"):
        config_lib.replace(world, {"memory.channels": 7})
    with pytest.raises(ValueError, match=r"data.height/width: got 33x48"):
        config_lib.replace(world, {"data.height": 33})


def test_a_config_that_is_not_there_says_what_to_give():
    with pytest.raises(ValueError, match=r"--config: got 'configs/dom.py', expected an existing"):
        config_lib.load("configs/dom.py")


def test_the_release_presets_run_chunks_as_the_release_does():
    for name in ("wan5b", "wan14b"):
        assert load(str(ROOT / "configs" / f"{name}.py:release")).chunk == release_chunk()
