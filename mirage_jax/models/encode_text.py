"""From prompts to embeddings: the text encoder with its weights and its tokenizer, run in batches.

Conventions: an embedding is [n, d] without padding, as the text cache stores it. What is loaded
here can be large (UMT5-XXL: 11 GB in bfloat16) and is freed with the last reference to it, so
whoever needs embeddings encodes first and loads the denoiser afterwards.

Read next: `text_encoder.py`, `tokenizer.py`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from mirage_jax.config import from_dict
from mirage_jax.models import files, functional
from mirage_jax.models.text_encoder import TextEncoderConfig
from mirage_jax.models.tokenizer import Tokenizer, Tokens, load_tokenizer

Dtype = Literal["float32", "bfloat16"]
WEIGHTS = "text_encoder.safetensors"
_SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A text encoder ready to run.

    Attributes:
      config: its sizes.
      params: its parameters, in the dtype of the file.
      tokenizer: of its prompts.
      identity: digests of weights and tokenizer; embeddings of equal identity may be mixed.
    """

    config: TextEncoderConfig
    params: functional.Params
    tokenizer: Tokenizer
    identity: str


def load_text_model(
    weights: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    *,
    dtype: Dtype | None = None,
    width: int | None = None,
) -> TextModel:
    """Load a text encoder with its tokenizer.

    Args:
      weights: a file of ours with its config in the header, or a folder with `WEIGHTS`.
      tokenizer: file or folder; None looks beside the weights.
      dtype: of activations, "float32" or "bfloat16"; None leaves that to the config.
      width: that its embeddings must have, or None for any.

    Raises:
      FileNotFoundError: weights or tokenizer are missing.
      ValueError: they cannot be read, or do not belong together.
    """
    path = Path(weights) / WEIGHTS if Path(weights).is_dir() else Path(weights)
    config = _stored_config(path)
    if width is not None and config.width != width:
        raise ValueError(
            f"text encoder {path}: makes embeddings of width {config.width}, expected {width}, the "
            "denoiser's text_width; give the text encoder that the denoiser was trained with"
        )
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    loaded = load_tokenizer(path.parent if tokenizer is None else tokenizer)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    params = files.load_params(path, config, dtype="stored")
    return TextModel(config, params, loaded, f"{digest[:16]}-{loaded.digest[:16]}")


def encode_prompts(
    model: TextModel, prompts: Sequence[str], *, batch: int = 8
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (prompt, embedding [n, d]) for every distinct prompt, short ones first.

    Args:
      model: from `load_text_model`.
      prompts: any number; repetitions are encoded once.
      batch: prompts encoded at once.

    Raises:
      ValueError: the tokenizer gives ids that the encoder has no row for.
    """
    distinct = list(dict.fromkeys(prompts))
    tokens = model.tokenizer(distinct)
    _check_ids(model, tokens)
    counts = tokens.mask.sum(axis=1)
    order = np.argsort(counts, kind="stable")
    batch = min(batch, len(order))
    for start in range(0, len(order), batch or 1):
        rows = order[start : start + batch]
        # Few shapes, hence few compilations: lengths are powers of two, batches are filled up.
        filled = np.resize(rows, batch)
        length = min(model.tokenizer.length, _next_power(int(counts[rows].max())))
        embedded = _apply(
            model.config, model.params, tokens.ids[filled, :length], tokens.mask[filled, :length]
        )
        for row, values in zip(rows, np.asarray(embedded), strict=False):
            yield distinct[row], values[: counts[row]]


def embed_prompts(
    weights: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None,
    prompts: Sequence[str],
    *,
    width: int | None = None,
) -> dict[str, np.ndarray]:
    """Load a text encoder, encode, and free it again; see `load_text_model` for the arguments.

    Returns:
      Prompt -> embedding [length, d], zeros after its rows, as the denoiser takes it.
    """
    model = load_text_model(weights, tokenizer, width=width)
    length = model.tokenizer.length
    return {
        prompt: np.pad(rows, ((0, length - len(rows)), (0, 0)))
        for prompt, rows in encode_prompts(model, prompts)
    }


# One compiled function for all calls, so that equal shapes are compiled once.
_apply = jax.jit(functional.apply, static_argnums=0)


def _stored_config(path: Path) -> TextEncoderConfig:
    header = files.load_metadata(path)
    try:
        values = json.loads(header["config"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"text encoder {path}: got no config in its header ({error}), expected a file that "
            "mirage convert wrote; convert the released weights first"
        ) from error
    return from_dict(TextEncoderConfig, values)


def _check_ids(model: TextModel, tokens: Tokens) -> None:
    highest = int(tokens.ids.max(initial=0))
    if highest >= model.config.vocabulary:
        raise ValueError(
            f"tokenizer: got token {highest}, expected ids below the encoder's vocabulary "
            f"{model.config.vocabulary}; give the tokenizer of this text encoder"
        )


def _next_power(count: int) -> int:
    return max(_SHORTEST, 1 << (count - 1).bit_length())
