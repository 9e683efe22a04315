"""What the memory branch is told: the read tokens, and where, how far and whence they were seen.

Conventions: channel last, any leading axes; channels come in the order of `_PARTS` and are all of
order one. The released weights take the tokens and as many "score" channels, the encoding of a
white clip (a constant); the paper takes the visibility mask in their place.

Read next: `branch.py` for who consumes it, `mirage_jax/world_model` for who builds it.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

_RAY_CHANNELS = 6
_GEOMETRY_CHANNELS = 4


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """Which parts make up the condition, in this order.

    Attributes:
      tokens: tokens read from memory (c channels).
      visibility: 1 where a row was found (1 channel).
      depth: logarithm of the depth read, 0 where nothing was found (1 channel).
      rays: Plücker rays of the target camera; the moment is compressed, see `build_condition`
        (6 channels).
      geometry: sub-cell offset, log scale ratio and viewing angle of the row (4 channels).
      score: constant channels of the released weights; 0 unless in release mode.
      holes: "filled": tokens of unseen cells come from the seen ones around them; "zero": they are
        zero (release).
    """

    tokens: bool = True
    visibility: bool = True
    depth: bool = True
    rays: bool = True
    geometry: bool = True
    score: int = 0
    holes: Literal["filled", "zero"] = "filled"

    def __post_init__(self):
        """Refuse an empty condition."""
        if self.score < 0 or not condition_channels(self, 1):
            raise ValueError(
                f"condition: got {self}, expected at least one part and score >= 0; switch "
                "tokens on"
            )


def condition_channels(config: ConditionConfig, latent_channels: int) -> int:
    """Return the channels of the condition for latents of `latent_channels` channels."""
    return (
        latent_channels * config.tokens
        + config.visibility
        + config.depth
        + _RAY_CHANNELS * config.rays
        + _GEOMETRY_CHANNELS * config.geometry
        + config.score
    )


RELEASE = ConditionConfig(
    visibility=False, depth=False, rays=False, geometry=False, score=48, holes="zero"
)

_PARTS = ("tokens", "visibility", "depth", "rays", "geometry", "score")


def build_condition(
    config: ConditionConfig,
    *,
    tokens: Float[jax.Array, "*n h w c"],
    visibility: Bool[jax.Array, "*n h w"] | None = None,
    depth: Float[jax.Array, "*n h w"] | None = None,
    rays: Float[jax.Array, "*n h w 6"] | None = None,
    geometry: Float[jax.Array, "*n h w 4"] | None = None,
    score: Float[jax.Array, "... s"] | None = None,
) -> Float[jax.Array, "*n h w e"]:
    """Concatenate the parts that the config asks for; the others may be None and are ignored.

    Depth enters as its logarithm and the rays' moments m as sign(m) log(1 + |m|), since both
    grow with the scene while the branch's input should not.

    Args:
      config: which parts.
      tokens: tokens read; also gives the result its shape and dtype.
      visibility: True where the read found a row.
      depth: z-depth of the rows, scene units.
      rays: unit direction and moment of each cell's ray, in a frame near the target cameras.
      geometry: offset (2, cells), log scale ratio, angle (radians) of the rows.
      score: constant, broadcast against the leading axes.

    Returns:
      The condition with `condition_channels(config, c)` channels.

    Raises:
      ValueError: naming a part that the config asks for and that is None or of another shape.
    """
    given: dict[str, Any] = {
        "tokens": tokens,
        "visibility": None if visibility is None else visibility[..., None],
        "depth": None if depth is None else depth[..., None],
        "rays": rays,
        "geometry": geometry,
        "score": score,
    }
    widths = {
        "visibility": 1,
        "depth": 1,
        "rays": _RAY_CHANNELS,
        "geometry": _GEOMETRY_CHANNELS,
        "score": config.score,
    }
    wanted = [name for name in _PARTS if getattr(config, name)]
    for name in wanted:
        _check_part(name, given[name], tokens.shape, widths.get(name, tokens.shape[-1]))
    if config.depth:
        log_depth = jnp.log(jnp.where(given["depth"] > 0, given["depth"], 1.0))
        given["depth"] = jnp.where(_seen(visibility), log_depth, 0.0)
    if config.rays:
        direction, moment = jnp.split(given["rays"], 2, axis=-1)
        compressed = jnp.sign(moment) * jnp.log1p(jnp.abs(moment))
        given["rays"] = jnp.concatenate([direction, compressed], axis=-1)
    if config.score:
        given["score"] = jnp.broadcast_to(given["score"], (*tokens.shape[:-1], config.score))
    return jnp.concatenate([given[name].astype(tokens.dtype) for name in wanted], axis=-1)


def _seen(visibility) -> jax.Array | bool:
    return True if visibility is None else visibility[..., None]


def _check_part(name: str, part, tokens_shape: tuple[int, ...], width: int) -> None:
    expected = (*tokens_shape[:-1], width)
    fits = part is not None and (
        part.shape[-1] == width if name == "score" else part.shape == expected
    )
    if not fits:
        got = None if part is None else part.shape
        raise ValueError(
            f"condition.{name}: got {got}, expected shape {expected}; pass it to build_condition "
            f"or switch condition.{name} off"
        )
