"""What a chunk of a rollout costs with a latent memory and with an RGB cache, from configs alone.

For sizes that no machine at hand can run. Counted are the products of the denoiser over all solver
steps (`operations.py`), and those of the codec by walking its traced program: a rollout decodes
every chunk; an RGB cache encodes one as well, which the latent memory does not. Drawing points,
reading the memory, depth, norms and what a device waits for are not counted, so the ratio of
operations is that of work in products, not of seconds.

Bytes are those of every cell or pixel of every latent frame: nothing is merged or left out.
Read next: `operations.py`, `mirage_jax/eval/efficiency.py` (the same, measured).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mirage_jax import world_model
from mirage_jax.memory.state import MemoryConfig, empty
from mirage_jax.models import functional
from mirage_jax.plan.operations import rollout_chunk
from mirage_jax.train.config import WorldConfig

# xyz in float32 and rgb in uint8.
_POINT_BYTES = 15
_ROW_TABLES = ("positions", "order", "tokens", "origin", "depth", "time", "weight")


@dataclasses.dataclass(frozen=True)
class ChunkCosts:
    """Costs of a chunk after the first, in operations, and of what it keeps, in bytes.

    Attributes:
        denoise: operations of all solver steps.
        decode: of its new frames, as a clip of their own.
        encode: of the frames that an RGB cache draws: target and preceding ones, and one latent
            frame before.
        latent_bytes: rows of its new latent frames, every cell.
        rgb_bytes: points of its new latent frames, every pixel.
    """

    denoise: float
    decode: float
    encode: float
    latent_bytes: int
    rgb_bytes: int

    @property
    def operations_ratio(self) -> float:
        """An RGB cache's operations over the latent memory's."""
        ours = self.denoise + self.decode
        return (ours + self.encode) / ours

    @property
    def cache_ratio(self) -> float:
        """An RGB cache's bytes over the latent memory's."""
        return self.rgb_bytes / self.latent_bytes

    def as_json(self) -> dict[str, Any]:
        """Return system -> metric -> value, and the ratios."""
        ours = {"operations": self.denoise + self.decode, "cache_bytes": self.latent_bytes}
        rgb = {
            "operations": self.denoise + self.decode + self.encode,
            "cache_bytes": self.rgb_bytes,
        }
        return {
            "latent": ours,
            "rgb_cache": rgb,
            "operations_ratio_vs_rgb": self.operations_ratio,
            "cache_ratio_vs_rgb": self.cache_ratio,
        }


def described(costs: ChunkCosts) -> str:
    """Return the costs as lines."""
    return "\n".join(
        (
            f"  denoise          {costs.denoise:.3g} operations",
            f"  decode           {costs.decode:.3g}",
            f"  encode (RGB)     {costs.encode:.3g}: the RGB cache takes "
            f"{costs.operations_ratio:.3f} times the operations",
            f"  latent memory    {costs.latent_bytes / 2**20:.1f} MiB a chunk, every cell",
            f"  RGB cache        {costs.rgb_bytes / 2**20:.1f} MiB a chunk, every pixel: "
            f"{costs.cache_ratio:.1f} times the bytes",
        )
    )


def chunk_costs(world: WorldConfig) -> ChunkCosts:
    """Count a chunk of a world; nothing is allocated and nothing run."""
    chunk, (height, width) = world.chunk, (world.data.height, world.data.width)
    cells = world.grid_hw[0] * world.grid_hw[1]
    new = chunk.latent_frames - 1
    drawn = 1 + chunk.temporal_stride * (chunk.latent_frames + chunk.preceding)
    params = {"codec": functional.abstract_params(world.codec)}
    video = jax.ShapeDtypeStruct((1, drawn, height, width, 3), jnp.float32)
    channels = world.memory.channels
    latents = jax.ShapeDtypeStruct((1, chunk.latent_frames, *world.grid_hw, channels), jnp.float32)
    encoded = jax.make_jaxpr(lambda p, x: world_model.encode(world, p, x))(params, video)
    decoded = jax.make_jaxpr(lambda p, x: world_model.decode(world, p, x))(params, latents)
    return ChunkCosts(
        denoise=rollout_chunk(world),
        decode=products(decoded.jaxpr),
        encode=products(encoded.jaxpr),
        latent_bytes=new * cells * row_bytes(world.memory),
        rgb_bytes=new * height * width * _POINT_BYTES,
    )


def row_bytes(config: MemoryConfig) -> int:
    """Return the bytes of a row of a latent memory."""
    tables = jax.eval_shape(lambda: empty(config))
    size = sum(
        math.prod(t.shape) * t.dtype.itemsize for t in (getattr(tables, n) for n in _ROW_TABLES)
    )
    return size // math.prod(tables.depth.shape)


def products(jaxpr: Any) -> float:
    """Count the operations of a traced program's matrix products and convolutions.

    Bodies of scans count as often as they run, those of loops of unknown length once, and of
    branches the dearest.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
        elif name == "conv_general_dilated":
            kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            each = math.prod(kernel) // kernel[spec[0]]
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * each
        elif name == "cond":
            total += max(products(branch.jaxpr) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(products(inner) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs inside an equation."""
    for value in params.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr
