"""Weights of released UMT5 text encoders to ours and back, by name.

Conventions: linear weights there are [out, in], one tensor a block; ours are [in, out], stacked.
Two layouts: `release` (the names that Wan gives them) and `transformers` (`UMT5EncoderModel`).
Values are only moved, so a round trip is exact to the bit.

Read next: `text_encoder.py` for the model.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mirage_jax.models.functional import (
    Params,
    Path,
    abstract_params,
    check_against,
    flatten,
    unflatten,
)
from mirage_jax.models.text_encoder import TextEncoderConfig

# Ours -> (release, transformers); `{}` is the block.
_RELEASE = {
    "token_embedding": "token_embedding.weight",
    "norm/scale": "norm.weight",
    "blocks/norm1/scale": "blocks.{}.norm1.weight",
    "blocks/norm2/scale": "blocks.{}.norm2.weight",
    "blocks/attn/q/kernel": "blocks.{}.attn.q.weight",
    "blocks/attn/k/kernel": "blocks.{}.attn.k.weight",
    "blocks/attn/v/kernel": "blocks.{}.attn.v.weight",
    "blocks/attn/o/kernel": "blocks.{}.attn.o.weight",
    "blocks/attn/pos_embedding": "blocks.{}.pos_embedding.embedding.weight",
    "blocks/ffn/gate/kernel": "blocks.{}.ffn.gate.0.weight",
    "blocks/ffn/up/kernel": "blocks.{}.ffn.fc1.weight",
    "blocks/ffn/down/kernel": "blocks.{}.ffn.fc2.weight",
}
_ATTENTION = "encoder.block.{}.layer.0.SelfAttention"
_FEED_FORWARD = "encoder.block.{}.layer.1.DenseReluDense"
_TRANSFORMERS = {
    "token_embedding": "shared.weight",
    "norm/scale": "encoder.final_layer_norm.weight",
    "blocks/norm1/scale": "encoder.block.{}.layer.0.layer_norm.weight",
    "blocks/norm2/scale": "encoder.block.{}.layer.1.layer_norm.weight",
    "blocks/attn/q/kernel": f"{_ATTENTION}.q.weight",
    "blocks/attn/k/kernel": f"{_ATTENTION}.k.weight",
    "blocks/attn/v/kernel": f"{_ATTENTION}.v.weight",
    "blocks/attn/o/kernel": f"{_ATTENTION}.o.weight",
    "blocks/attn/pos_embedding": f"{_ATTENTION}.relative_attention_bias.weight",
    "blocks/ffn/gate/kernel": f"{_FEED_FORWARD}.wi_0.weight",
    "blocks/ffn/up/kernel": f"{_FEED_FORWARD}.wi_1.weight",
    "blocks/ffn/down/kernel": f"{_FEED_FORWARD}.wo.weight",
}
LAYOUTS: Mapping[str, Mapping[str, str]] = {"release": _RELEASE, "transformers": _TRANSFORMERS}
# What the encoder of the Transformers layout calls the token table; files may have either or both.
_TIED = "encoder.embed_tokens.weight"


class _Shaped(NamedTuple):
    shape: tuple[int, ...]


def text_encoder_config(
    shapes: Mapping[str, tuple[int, ...]], *, layout: str = "release"
) -> TextEncoderConfig:
    """Read the sizes of a text encoder off the shapes of its tensors.

    Args:
      shapes: shape of each tensor by name.
      layout: `release` or `transformers`.

    Returns:
      The config; `max_distance`, `eps` and `dtype`, which no shape tells, are UMT5's defaults.

    Raises:
      ValueError: naming a tensor that is missing.
    """
    names = _layout(layout)

    def shape(ours: str) -> tuple[int, ...]:
        name = names[ours].format(0)
        if name not in shapes:
            raise ValueError(
                f"text encoder weights: {name} is missing, expected the tensors of a UMT5 encoder "
                f"in the {layout} layout; pass the right file or another layout"
            )
        return tuple(shapes[name])

    pattern = re.compile(re.escape(names["blocks/norm1/scale"]).replace(r"\{\}", r"(\d+)"))
    blocks = [int(found[1]) for found in map(pattern.fullmatch, shapes) if found]
    vocabulary, width = shape("token_embedding")
    buckets, heads = shape("blocks/attn/pos_embedding")
    return TextEncoderConfig(
        vocabulary=vocabulary,
        width=width,
        attention_width=shape("blocks/attn/q/kernel")[0],
        mlp_width=shape("blocks/ffn/up/kernel")[0],
        heads=heads,
        layers=1 + max(blocks, default=0),
        buckets=buckets,
    )


def text_encoder_from_release(
    tensors: Mapping[str, Any],
    config: TextEncoderConfig,
    *,
    layout: str = "release",
    dtype: Any = None,
) -> Params:
    """Convert released weights of a text encoder.

    Args:
      tensors: released tensors by name.
      config: sizes, e.g. from `text_encoder_config`.
      layout: `release` or `transformers`.
      dtype: of the result; None keeps the dtype of the file.

    Returns:
      Parameters for `functional.apply(config, ...)`.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    names = _layout(layout)
    tensors = {name: value for name, value in tensors.items() if name != _TIED} | (
        {names["token_embedding"]: tensors[_TIED]} if _TIED in tensors else {}
    )
    leaves = flatten(abstract_params(config))
    wanted: dict[Path, Any] = {
        (name,): _Shaped(_their_shape(path, leaf.shape))
        for path, leaf in leaves.items()
        for name in _names(path, config, names)
    }
    check_against(wanted, {(n,): v for n, v in tensors.items()}, what="text encoder weights")
    flat = {}
    for path in leaves:
        parts = [_turned(path, tensors[name]) for name in _names(path, config, names)]
        value = np.stack(parts) if path[0] == "blocks" else parts[0]
        flat[path] = jnp.asarray(value, dtype or value.dtype)
    return unflatten(flat)


def text_encoder_to_release(
    params: Params, config: TextEncoderConfig, *, layout: str = "release"
) -> dict[str, np.ndarray]:
    """Convert parameters to released names; inverse of `text_encoder_from_release`."""
    flat, names = flatten(params), _layout(layout)
    check_against(flatten(abstract_params(config)), flat, what="text encoder parameters")
    tensors = {}
    for path, leaf in flat.items():
        value = np.asarray(leaf)
        layers = value if path[0] == "blocks" else value[None]
        for name, layer in zip(_names(path, config, names), layers, strict=True):
            tensors[name] = np.ascontiguousarray(_turned(path, layer))
    return tensors


def _layout(layout: str) -> Mapping[str, str]:
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {tuple(LAYOUTS)}")
    return LAYOUTS[layout]


def _names(path: Path, config: TextEncoderConfig, names: Mapping[str, str]) -> list[str]:
    pattern = names["/".join(path)]
    return [pattern.format(n) for n in range(config.layers if path[0] == "blocks" else 1)]


def _their_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = shape[1:] if path[0] == "blocks" else shape
    return shape[::-1] if path[-1] == "kernel" else shape


def _turned(path: Path, value: Any) -> np.ndarray:
    """Turn a linear weight between [out, in] and [in, out]; leave all else."""
    return np.asarray(value).T if path[-1] == "kernel" else np.asarray(value)
