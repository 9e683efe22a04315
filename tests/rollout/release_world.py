"""A tiny world run by the release's conventions: no depth head, text, references, kept reads."""

import dataclasses
import functools

import numpy as np
from tiny_world import CHANNELS, HW, tiny_spec, tiny_world

from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.memory.state import release_config
from mirage_jax.models import functional
from mirage_jax.models.condition import RELEASE
from mirage_jax.models.config import ReferenceConfig, release_chunk
from mirage_jax.rollout.chunk import Prompt, Providers
from mirage_jax.rollout.depths import path_depth
from mirage_jax.rollout.world import World, WorldSpec

WALL = 4.0
TEXT = 6


def release_spec(capacity: int = 2000, guidance: float = 1.0, text: int = TEXT) -> WorldSpec:
    tiny = tiny_spec()
    return dataclasses.replace(
        tiny,
        name="release",
        depth_head=None,
        learned_read=None,
        condition=dataclasses.replace(RELEASE, score=CHANNELS),
        denoiser=dataclasses.replace(
            tiny.denoiser,
            prediction="velocity",
            text_width=text,
            condition_channels=2 * CHANNELS,
        ),
        memory=release_config(capacity, CHANNELS),
        # A cell of the flat wall is half a unit wide.
        chunk=release_chunk(latent_frames=3, references=ReferenceConfig(2, 0.5, 0.1)),
        sampling=SamplingConfig(steps=2, guidance=guidance, integer_timesteps=True),
    )


@functools.cache
def release_world(capacity: int = 2000, guidance: float = 1.0, text: int = TEXT) -> World:
    spec = release_spec(capacity, guidance, text)
    rng = np.random.default_rng(1)
    flat = functional.flatten(functional.abstract_params(spec.denoiser))
    drawn = {
        path: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32) for path, leaf in flat.items()
    }
    codec = tiny_world().params["codec"]
    return World(spec, {"codec": codec, "denoiser": functional.unflatten(drawn)})


def prompt(chunks: int = 1, seed: int = 0) -> Prompt:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(chunks, 5, TEXT)).astype(np.float32)
    return Prompt(text, np.zeros((5, TEXT), np.float32))


def wall_depth(frames: int, batch: int = 1) -> Providers:
    depth = np.full((batch, frames, *HW), WALL, np.float32)
    return Providers(depth=path_depth(release_spec(), depth))
