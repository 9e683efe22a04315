"""Latents of clips, as the trained codec encodes them, and what of their geometry windows need.

Each clip is stored as recorded and, if asked for, mirrored left to right, each played forwards and
backwards. A clip played backwards passes through exactly the cameras of the way out, which is what
a return in a rollout does. Latent frame i has the camera of the last video frame of its group;
`single` holds those frames encoded on their own, as the start picture of a rollout is, and `held`
as a camera at rest gives them, the form in which a start picture enters memory. Intrinsics, depth
and masks are those of the latent grid.
Read next: `mirage_jax/train/latent_files.py` (where they are kept), `windows/draw.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.models import files, functional
from mirage_jax.train.start import find_file

GridDepth = Literal["surface", "bilinear"]

SKY_DEPTH = 500.0  # recorded sky lies at 1000 m; nothing else is farther than this
_SKY_KIND = 4


class Latents(NamedTuple):
    """Latents of n clips; t latent frames on an h x w grid.

    The second axis, m, is 0 as recorded and 1, where it exists, mirrored; the third of `video` is 0
    forwards, 1 backwards.
    All other arrays are in forward order.

    Attributes:
        video: [n, m, 2, t, h, w, c] float16 latents of the whole clip.
        single: [n, m, t, h, w, c] float16 latents of single frames.
        held: [n, m, t, h, w, c] float16 latents of held frames.
        depth: [n, m, t, h, w] float32 z-depth in scene units, 0 unknown.
        keep: [n, m, t, h, w] True where the cell is static and its depth safe to write.
        known: [n, m, t, h, w] True where depth is known.
        sky: [n, m, t, h, w] True where sky is seen.
        cam_to_world: [n, m, t, 4, 4] float32.
        intrinsics: [n, m, 3, 3] float32 in cells.
    """

    video: np.ndarray
    single: np.ndarray
    held: np.ndarray
    depth: np.ndarray
    keep: np.ndarray
    known: np.ndarray
    sky: np.ndarray
    cam_to_world: np.ndarray
    intrinsics: np.ndarray

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.video)

    @property
    def views(self) -> int:
        """1, or 2 where clips are stored mirrored too."""
        return self.video.shape[1]

    @property
    def frames(self) -> int:
        """Latent frames of a clip."""
        return self.video.shape[3]

    def clip(self, index: int) -> Latents:
        """Return the latents of one clip, without the leading axis n."""
        return Latents(*(array[index] for array in self))


class LatentSource(Protocol):
    """Latents of the clips of a split by index: `Latents`, or files of them."""

    @property
    def clips(self) -> int:
        """Number of clips."""

    @property
    def views(self) -> int:
        """1, or 2 where clips are stored mirrored too."""

    @property
    def frames(self) -> int:
        """Latent frames of a clip."""

    def clip(self, index: int) -> Latents:
        """Return the latents of one clip, without the leading axis n."""


@dataclasses.dataclass(frozen=True)
class CodecWeights:
    """The frozen codec of a workdir.

    Attributes:
        config: its sizes.
        params: its parameters.
        digest: of the file they came from.
    """

    config: Any
    params: Any
    digest: str


def load_codec(folders: Sequence[Path], config: Any) -> CodecWeights:
    """Read `codec.safetensors` from the first folder that has it.

    Raises:
        FileNotFoundError: if none does.
    """
    path = find_file(folders, "codec.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return CodecWeights(config, files.load_params(path, config), digest)


def encode_clip(
    clip: dict,
    encode: Callable[[Any], Any],
    stride: int,
    *,
    mirror: bool = False,
    grid_depth: GridDepth = "surface",
) -> Latents:
    """Return the latents of one clip, without the leading axis n.

    Args:
        clip: arrays of a recorded clip with 1 + n groups of frames.
        encode: video [b, f, H, W, 3] in [-1, 1] -> latents [b, t, h, w, c].
        stride: pixels of a cell.
        mirror: also encode the clip mirrored left to right.
        grid_depth: of a cell, see `models.config.WriteConfig.depth`.
    """
    views = 2 if mirror else 1
    rgb = clip["rgb"]
    forward = np.stack([rgb, rgb[:, :, ::-1]][:views]).astype(np.float32) / 127.5 - 1.0
    video = np.stack([encode(forward), encode(np.ascontiguousarray(forward[:, ::-1]))], axis=1)
    times = np.arange(0, forward.shape[1], (forward.shape[1] - 1) // (video.shape[2] - 1))
    frames = forward[:, times]
    single = np.asarray(encode(frames.reshape(-1, 1, *frames.shape[2:])))
    held = _encode_held(frames.reshape(-1, *frames.shape[2:]), encode, times[1] - times[0])
    height, width = frames.shape[2:4]
    grid_hw = (height // stride, width // stride)
    masks = {k: np.stack([clip[k][times], clip[k][times][..., ::-1]][:views]) for k in _MASKS}
    depth, keep, known, sky = _grid_masks(masks, grid_hw, grid_depth)
    camera = Camera(clip["cam_to_world"][times], clip["intrinsics"])
    camera = Camera(*(leaf[:views] for leaf in mirrored_pair(camera, width)))
    return Latents(
        video=video.astype(np.float16),
        single=single.reshape(views, len(times), *single.shape[2:]).astype(np.float16),
        held=held.reshape(views, len(times), *held.shape[1:]).astype(np.float16),
        depth=depth,
        keep=keep,
        known=known,
        sky=sky,
        cam_to_world=camera.cam_to_world.astype(np.float32),
        intrinsics=np.asarray(
            rescale_intrinsics(camera.intrinsics, (height, width), grid_hw), np.float32
        ),
    )


def _encode_held(frames: np.ndarray, encode: Callable[[Any], Any], stride: int) -> np.ndarray:
    """Return [n, h, w, c]: each frame as the last latent frame of a camera at rest."""
    length = 1 + world_model.HELD_LATENTS * stride
    clips = np.repeat(frames[:, None], length, axis=1)
    return np.asarray(encode(clips))[:, -1]


def mirrored_pair(camera: Camera, width: int) -> Camera:
    """Return cameras [2, ...]: as given, and those that see the left-right mirrored frames.

    Mirroring turns x into -x in the camera and in the world alike, which keeps rotations proper;
    the principal point moves to the other side.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0]).astype(np.float32)
    turned = mirror @ camera.cam_to_world @ mirror
    flipped = camera.intrinsics.copy()
    flipped[..., 0, 2] = width - flipped[..., 0, 2]
    flipped[..., 0, 1] = -flipped[..., 0, 1]
    return Camera(np.stack([camera.cam_to_world, turned]), np.stack([camera.intrinsics, flipped]))


_MASKS = ("depth", "kind", "sprite", "moving")


def _grid_masks(
    pixels: dict[str, np.ndarray], grid_hw: tuple[int, int], how: GridDepth
) -> tuple[np.ndarray, ...]:
    """Return depth, keep, known and sky [m, t, h, w] on the latent grid."""
    depth = pixels["depth"].astype(np.float32)
    static = (depth > 0) & ~pixels["sprite"] & ~pixels["moving"] & (pixels["kind"] != _SKY_KIND)
    sky = (depth >= SKY_DEPTH) & ~pixels["sprite"]
    # Sky is remembered too, as a surface too far away to shift: it turns with the camera.
    small, keep = world_model.grid_depth(depth, static | sky, grid_hw, how)
    small = np.where(small >= SKY_DEPTH, world_model.FAR, small)
    return small.astype(np.float32), keep, small > 0, small >= SKY_DEPTH


def decode_pictures(codec: CodecWeights, latents: np.ndarray) -> np.ndarray:
    """Decode [b, t, h, w, c] one clip at a time into [b, f, H, W, 3] in [-1, 1]."""
    parts = [
        apply_codec(
            codec.config,
            codec.params,
            jnp.asarray(clip[None], jnp.float32),
            method="decode_streamed",
        )
        for clip in latents
    ]
    return np.clip(np.concatenate([np.asarray(part) for part in parts]), -1.0, 1.0)


# One compiled function for all calls, so that equal shapes are compiled once.
apply_codec = jax.jit(functional.apply, static_argnums=0, static_argnames="method")
