"""A tiny world of random weights and a flat scene, for tests of rollout and evaluation."""

import functools

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
        memory=MemoryConfig(capacity=600, channels=CHANNELS, page_rows=80, select="best_view"),
        learned_read=LearnedReadConfig(latent_channels=CHANNELS, width=8, blocks=1),
        chunk=ChunkConfig(latent_frames=3, preceding=1),
        sampling=SamplingConfig(steps=2),
    )


@functools.cache
def tiny_world() -> World:
    """See `world_of`."""
    return world_of(tiny_spec())


def world_of(spec: WorldSpec) -> World:
    """Random weights everywhere, also where initialisation puts zeros, so that nothing cancels.

    Drawn by NumPy: compiling a draw for each shape would take longer than the tests.
    """
    names = ("codec", "depth_head", "denoiser", "learned_read")
    rng = np.random.default_rng(0)
    return World(spec=spec, params={name: _draw(getattr(spec, name), rng) for name in names})


def _draw(config, rng: np.random.Generator) -> dict:
    flat = functional.flatten(functional.abstract_params(config))
    drawn = {}
    for path, leaf in flat.items():
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        center = 1.0 if path[-1] in ("latent_std", "scale", "weight") else 0.0
        spread = 0.05 if len(leaf.shape) == 1 else fan_in**-0.5
        drawn[path] = jnp.asarray(center + spread * rng.normal(size=leaf.shape), leaf.dtype)
    return functional.unflatten(drawn)


def flat_scene(seed: int = 0, distance: float = 4.0, hw: tuple[int, int] = HW) -> Scene:
    """A wall that fills the view, seen from straight ahead."""
    rng = np.random.default_rng(seed)
    height, width = hw
    intrinsics = np.array(
        [[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], np.float32
    )
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


def wall_clip(frames: int = 17, seed: int = 0) -> dict:
    """A recorded clip of the flat scene: the camera slides right, the pictures are noise."""
    rng = np.random.default_rng(seed)
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    pose[:, 0, 3] = np.linspace(0, 3, frames)
    return {
        "rgb": rng.integers(0, 256, (frames, *HW, 3), dtype=np.uint8),
        "depth": np.full((frames, *HW), 4.0, np.float16),
        "moving": np.zeros((frames, *HW), bool),
        "cam_to_world": pose,
        "intrinsics": np.asarray(flat_scene().camera.intrinsics),
    }
