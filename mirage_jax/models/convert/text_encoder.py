"""Weights of released UMT5 text encoders to ours and back, by name.

Conventions: linear weights there are [out, in], one tensor a block; ours are [in, out], stacked.
Two layouts: `release` (the names that Wan gives them) and `diffusers` (`UMT5EncoderModel` of
Transformers, as a Diffusers pipeline holds it).
Values are only moved, so a round trip is exact to the bit.

Read next: `text_encoder.py` for the model.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mirage_jax.models.convert.layout import (
    KERNEL,
    LAYOUTS,
    PLAIN,
    Entry,
    Layout,
    check_entries,
    to_ours,
    to_theirs,
)
from mirage_jax.models.functional import Params, abstract_params, check_against, flatten
from mirage_jax.models.text_encoder import TextEncoderConfig

# Ours -> theirs; `{}` is the block.
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
_NAMES: Mapping[Layout, Mapping[str, str]] = {"release": _RELEASE, "diffusers": _TRANSFORMERS}
# What the encoder of the Transformers layout calls the token table; files may have either or both.
_TIED = "encoder.embed_tokens.weight"
TEXT_MARKERS: Mapping[Layout, str] = {
    "release": r"^token_embedding\.",
    "diffusers": r"^(shared|encoder\.embed_tokens)\.",
}


def text_encoder_config(
    shapes: Mapping[str, tuple[int, ...]], *, layout: Layout = "release"
) -> TextEncoderConfig:
    """Read the sizes of a text encoder off the shapes of its tensors.

    Args:
      shapes: shape of each tensor by name.
      layout: `release` or `diffusers`.

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
    layout: Layout = "release",
    dtype: Any = None,
) -> Params:
    """Convert released weights of a text encoder.

    Args:
      tensors: released tensors by name.
      config: sizes, e.g. from `text_encoder_config`.
      layout: `release` or `diffusers`.
      dtype: of the result; None keeps the dtype of the file.

    Returns:
      Parameters for `functional.apply(config, ...)`.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    tensors = without_tied_table(tensors)
    entries = text_encoder_entries(config, layout)
    check_entries(entries, flatten(abstract_params(config)), tensors, what="text encoder weights")
    return to_ours(entries, tensors, dtype=dtype)


def text_encoder_to_release(
    params: Params, config: TextEncoderConfig, *, layout: Layout = "release"
) -> dict[str, np.ndarray]:
    """Convert parameters to released names; inverse of `text_encoder_from_release`."""
    flat = flatten(params)
    check_against(flatten(abstract_params(config)), flat, what="text encoder parameters")
    return to_theirs(text_encoder_entries(config, layout), flat)


def text_encoder_entries(config: TextEncoderConfig, layout: Layout) -> list[Entry]:
    """Return an entry for every tensor of the text encoder."""
    leaves = flatten(abstract_params(config))
    return [e for path in leaves for e in _entries(path, config, _layout(layout))]


def without_tied_table(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the token table of the Transformers layout under its first name alone."""
    rest = {name: value for name, value in tensors.items() if name != _TIED}
    return rest | ({_TRANSFORMERS["token_embedding"]: tensors[_TIED]} if _TIED in tensors else {})


def _layout(layout: Layout) -> Mapping[str, str]:
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {LAYOUTS}")
    return _NAMES[layout]


def _entries(
    path: tuple[str, ...], config: TextEncoderConfig, names: Mapping[str, str]
) -> Iterator[Entry]:
    pattern, form = names["/".join(path)], KERNEL if path[-1] == "kernel" else PLAIN
    for layer in range(config.layers) if path[0] == "blocks" else [None]:
        yield Entry(pattern.format(layer), path, layer, form)
