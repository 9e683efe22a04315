"""Ways to read one written frame at a later camera: the rows of `mirage evaluate read`.

A row is a function of what was written and of the later camera to the tokens that are decoded
there. To add one, write the function and enter it in `ROWS`; nothing else changes.

Conventions: one pair, no batch axis; pictures in [-1, 1], cameras with intrinsics in pixels, depth
z-depth with 0 = unknown. Tokens are those of a camera at rest, as rollout stores its start picture.
Read next: `evaluate.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.memory import features as feature_lib
from mirage_jax.memory import fill, read, state, write
from mirage_jax.models.codec import CodecConfig
from mirage_jax.rollout.world import WorldSpec

# Rows of a cell whose mean is a row of its own.
_K = 4
# Bytes of a row's geometry: position, origin, depth, order and time.
_GEOMETRY_BYTES = 4 * (3 + 3 + 1 + 1 + 1)
# Bytes of a point of a colour memory as it is usually kept: place in float32, colour in 8 bits.
_POINT_BYTES = 4 * 3 + 3


class Pieces(NamedTuple):
    """One pair of frames.

    Attributes:
        tokens: of the written frame.
        image: the written frame.
        depth: its true depth.
        keep: True where it is static.
        camera: its camera.
        memory: holds its tokens, by the world's rules.
        points: a memory of its pixels, the colours being the tokens.
        later: the camera that reads.
        target: what that camera really sees.
    """

    tokens: Float[jax.Array, "h w c"]
    image: Float[jax.Array, "H W 3"]
    depth: Float[jax.Array, "H W"]
    keep: Bool[jax.Array, "H W"]
    camera: Camera
    memory: state.LatentMemory
    points: state.LatentMemory
    later: Camera
    target: Float[jax.Array, "H W 3"]


class Shown(NamedTuple):
    """What a row shows: tokens of every cell, and the cells that something was read for."""

    tokens: Float[jax.Array, "h w c"]
    covered: Bool[jax.Array, "h w"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to read.

    Attributes:
        show: (spec, params, pieces) -> `Shown`; jitted, and timed, as it is.
        words: what it is, in a line of the report.
        size: (spec, pieces) -> bytes kept of a written frame; None where nothing is kept.
        fits: which worlds have it.
    """

    show: Callable[[WorldSpec, Any, Pieces], Shown]
    words: str
    size: Callable[[WorldSpec, Pieces], int] | None
    fits: Callable[[WorldSpec], bool] = lambda spec: True


def write_pieces(
    spec: WorldSpec, params: Any, image: Any, depth: Any, keep: Any, camera: Any, later: Any
) -> Pieces:
    """Write one frame into a memory of tokens and into one of pixels; `target` is left at zero."""
    tokens = world_model.encode_held(spec, params, image[None])[0]
    small, kept = world_model.grid_depth(depth[None], keep[None], spec.grid_hw)
    memory, _ = write.write_frames(
        state.empty(spec.memory), tokens[None], small, kept, _grid(spec, camera), spec.memory, 0
    )
    points = _write_points(spec, image, depth, keep, camera)
    zero = jnp.zeros_like(image)
    return Pieces(tokens, image, depth, keep, camera, memory, points, later, zero)


def decode_at_rest(
    spec: WorldSpec, params: Any, tokens: Float[jax.Array, "h w c"]
) -> Float[jax.Array, "H W 3"]:
    """Decode tokens as the last of equal latent frames, which is how a camera at rest sees them."""
    frames = 1 + world_model.HELD_LATENTS
    latents = jnp.repeat(tokens[None], frames, axis=0)
    return world_model.decode(spec, params, latents[None])[0, -1]


def _nearest(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    found = _read(spec, pieces, select="nearest")
    return Shown(found.tokens[0], found.visibility[0])


def _filled(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    found = _read(spec, pieces, select="nearest")
    return Shown(fill.fill_holes(found.tokens, found.visibility)[0], found.visibility[0])


def _mean_k(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    """Average the best rows of each cell."""
    found = read.read(pieces.memory, _grid(spec, pieces.later), spec.grid_hw, spec.memory, _K)
    count = jnp.sum(found.visibility, axis=1)[..., None]
    mean = jnp.sum(found.tokens, axis=1) / jnp.maximum(count, 1)
    visible = found.visibility[:, 0]
    return Shown(fill.fill_holes(mean, visible)[0], visible[0])


def _dense(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    """Carry the interpolated token of every pixel by that pixel's own depth; mean of a cell."""
    height, width = pieces.depth.shape
    channels, cells = pieces.tokens.shape[-1], spec.grid_hw[0] * spec.grid_hw[1]
    each = jax.image.resize(pieces.tokens, (height, width, channels), "linear")
    later = jax.tree.map(lambda leaf: leaf[0], _grid(spec, pieces.later))
    uv, z = project(unproject(pieces.depth, pieces.camera).reshape(-1, 3), later)
    column, line = (jnp.floor(uv[:, k]).astype(jnp.int32) for k in (0, 1))
    inside = (z > 0) & (pieces.depth > 0).reshape(-1) & pieces.keep.reshape(-1)
    inside &= (column >= 0) & (column < spec.grid_hw[1]) & (line >= 0) & (line < spec.grid_hw[0])
    cell = jnp.where(inside, line * spec.grid_hw[1] + column, cells)
    surface = jax.ops.segment_min(jnp.where(inside, z, jnp.inf), cell, cells + 1)
    share = (inside & (z <= (1 + spec.memory.shell) * surface[cell])).astype(jnp.float32)
    total = jax.ops.segment_sum(share[:, None] * each.reshape(-1, channels), cell, cells + 1)
    count = jax.ops.segment_sum(share, cell, cells + 1)
    mean = (total / jnp.maximum(count, 1.0)[:, None])[:cells].reshape(*spec.grid_hw, channels)
    covered = (count[:cells] > 0).reshape(spec.grid_hw)
    return Shown(fill.fill_holes(mean, covered), covered)


def _placed(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    memory, later, found = jax.tree.map(
        lambda leaf: leaf[None], (pieces.memory, _grid(spec, pieces.later), _read(spec, pieces))
    )
    filled = fill.fill_holes(found.tokens, found.visibility)
    rows = None
    if spec.learned_read is not None:
        rows = world_model.read_rows(spec, memory, later, found)
    features = feature_lib.read_features(found)
    tokens = world_model.place(spec, params, found, filled, features, rows)
    return Shown(tokens[0, 0], found.visibility[0, 0])


def _learned(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    memory, later = jax.tree.map(
        lambda leaf: leaf[None], (pieces.memory, _grid(spec, pieces.later))
    )
    reference = jax.tree.map(lambda leaf: leaf[:, 0], later)
    seen = world_model.observe(spec, params, memory, later, spec.grid_hw, reference)
    return Shown(seen.base[0, 0], seen.read.visibility[0, 0])


def _rgb(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    return _encode_points(spec, params, pieces.points, pieces.later)


def _decoded(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    picture = decode_at_rest(spec, params, pieces.tokens)
    points = _write_points(spec, picture, pieces.depth, pieces.keep, pieces.camera)
    return _encode_points(spec, params, points, pieces.later)


def _own(spec: WorldSpec, params: Any, pieces: Pieces) -> Shown:
    tokens = world_model.encode_held(spec, params, pieces.target[None])[0]
    return Shown(tokens, jnp.ones(spec.grid_hw, bool))


def _token_bytes(spec: WorldSpec, pieces: Pieces) -> int:
    token = spec.memory.channels * pieces.memory.tokens.dtype.itemsize
    axes = 12 if spec.memory.axes else 0
    return int(pieces.memory.count) * (token + _GEOMETRY_BYTES + axes)


def _token_and_depth_bytes(spec: WorldSpec, pieces: Pieces) -> int:
    return _token_bytes(spec, pieces) + 4 * int(np.prod(pieces.depth.shape))


def _point_bytes(spec: WorldSpec, pieces: Pieces) -> int:
    return int(pieces.points.count) * _POINT_BYTES


def _has_patches(spec: WorldSpec) -> bool:
    read = spec.learned_read
    return isinstance(spec.codec, CodecConfig) or (read is not None and read.patch > 0)


ROWS: dict[str, Row] = {
    "nearest": Row(_nearest, "nearest row of a cell, holes at zero: the paper's", _token_bytes),
    "filled": Row(_filled, "the same, holes filled from the cells around them", _token_bytes),
    "mean_k": Row(_mean_k, f"mean of a cell's {_K} best rows, holes filled", _token_bytes),
    "dense": Row(
        _dense,
        "each pixel's depth carries the interpolated token, mean of a cell, holes filled",
        _token_and_depth_bytes,
    ),
    "placed": Row(
        _placed, "patches placed where they are seen, no learning", _token_bytes, _has_patches
    ),
    "learned": Row(
        _learned,
        "the world's learned read, as rollout uses it",
        _token_bytes,
        lambda spec: spec.learned_read is not None,
    ),
    "rgb": Row(_rgb, "memory of pixels: rasterize, fill, encode", _point_bytes),
    "decoded": Row(
        _decoded,
        "decode the stored tokens, rasterize with every pixel's depth, fill, encode",
        _token_and_depth_bytes,
    ),
    "own": Row(_own, "the later frame's own tokens: the codec's ceiling", None),
}


def _grid(spec: WorldSpec, camera: Camera) -> Camera:
    """Return one camera as a batch [1] with the intrinsics of the latent grid."""
    one = jax.tree.map(lambda leaf: leaf[None], camera)
    return world_model.grid_camera(one, spec.frame_hw, spec.grid_hw)


def _read(spec: WorldSpec, pieces: Pieces, **changes: Any) -> read.MemoryRead:
    config = dataclasses.replace(spec.memory, **changes)
    return read.read(pieces.memory, _grid(spec, pieces.later), spec.grid_hw, config)


def _point_config(spec: WorldSpec) -> state.MemoryConfig:
    return state.MemoryConfig(spec.height * spec.width, 3, moved_margin=0.0)


def _write_points(spec: WorldSpec, image: Any, depth: Any, keep: Any, camera: Any) -> Any:
    """Return a memory whose rows are the pixels of one picture."""
    config, one = _point_config(spec), jax.tree.map(lambda leaf: leaf[None], camera)
    empty = state.empty(config)
    return write.write_frames(empty, image[None], depth[None], keep[None], one, config, 0)[0]


def _encode_points(
    spec: WorldSpec, params: Any, points: state.LatentMemory, later: Camera
) -> Shown:
    """Rasterize a memory of pixels, fill what nothing fell on, and encode the picture."""
    one = jax.tree.map(lambda leaf: leaf[None], later)
    found = read.read(points, one, spec.frame_hw, _point_config(spec))
    picture = fill.fill_holes(found.tokens, found.visibility)
    (h, w), (height, width) = spec.grid_hw, spec.frame_hw
    cells = found.visibility[0].reshape(h, height // h, w, width // w)
    return Shown(world_model.encode_held(spec, params, picture)[0], cells.any((1, 3)))
