"""A world of a few thousand parameters, drawn at random, and a flat scene: for tests of rollout and evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.state import MemoryConfig
from mirage_jax.models import functional
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.condition import ConditionConfig, condition_channels
from mirage_jax.models.config import ChunkConfig
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.depth_head import DepthHeadConfig
from mirage_jax.models.learned_read import LearnedReadConfig
from mirage_jax.rollout.scene import Scene
from mirage_jax.rollout.world import World, WorldSpec

HW = (32, 48)
CHANNELS = 8


def tiny_spec() -> WorldSpec:
    return WorldSpec(
        name="tiny",
        height=HW[0],
        width=HW[1],
        codec=CodecConfig(latent_channels=CHANNELS, width=8, encoder_blocks=1, decoder_blocks=1),
        depth_head=DepthHeadConfig(latent_channels=CHANNELS, width=8, blocks=1),
        denoiser=DenoiserConfig(
            latent_channels=CHANNELS,
            out_channels=CHANNELS,
            width=16,
            heads=2,
            layers=2,
            mlp_width=16,
            text_width=0,
            time_frequencies=16,
            branch_layers=(0,),
            condition_channels=condition_channels(ConditionConfig(), CHANNELS),
            prediction="clean",
        ),
        memory=MemoryConfig(capacity=600, channels=CHANNELS, select="best_view"),
        learned_read=LearnedReadConfig(latent_channels=CHANNELS, width=8, blocks=1),
        chunk=ChunkConfig(latent_frames=3, preceding=1),
        sampling=SamplingConfig(steps=2),
    )


@functools.cache
def tiny_world() -> World:
    """Random weights everywhere, also where initialisation puts zeros, so that nothing cancels."""
    spec = tiny_spec()
    names = ("codec", "depth_head", "denoiser", "learned_read")
    params = {}
    for seed, name in enumerate(names):
        tree = functional.init(getattr(spec, name), seed)
        keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(tree))))
        params[name] = jax.tree.map(
            lambda leaf, keys=keys: leaf + 0.02 * jax.random.normal(next(keys), leaf.shape), tree
        )
    return World(spec=spec, params=params)


def flat_scene(seed: int = 0, distance: float = 4.0, hw: tuple[int, int] = HW) -> Scene:
    """A wall that fills the view, seen from straight ahead."""
    rng = np.random.default_rng(seed)
    height, width = hw
    intrinsics = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], np.float32)
    return Scene(
        name=f"wall{seed}",
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        depth=np.full((height, width), distance, np.float32),
        keep=np.ones((height, width), bool),
        camera=Camera(np.eye(4, dtype=np.float32), intrinsics),
    )


def sideways_and_back(frames: int, reach: float) -> Camera:
    """A path that slides right along the wall and back, still for its last latent frame."""
    half = (frames - 4) // 2
    way = np.concatenate([np.linspace(0, 1, half + 1), np.linspace(1, 0, half + 1)[1:]])
    way = np.concatenate([way, np.zeros(frames - len(way))])
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    pose[:, 0, 3] = reach * way
    intrinsics = np.tile(flat_scene().camera.intrinsics, (frames, 1, 1))
    return Camera(pose, intrinsics)


def batched(camera: Camera) -> Camera:
    """Add the leading axis of rollouts that run side by side."""
    return Camera(*(jnp.asarray(leaf)[None] for leaf in camera))
