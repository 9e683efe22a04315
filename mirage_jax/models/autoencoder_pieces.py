"""Videos of any length through the autoencoder, from a host loop and in bounded memory.

Conventions: those of `autoencoder.py`. A video comes as any iterable of arrays that follow each
other in time, however cut: what a file reader yields, or the latents of chunk after chunk. Results
are yielded as they are ready; put end to end they are what `encode` or `decode` of the whole would
give. Two shapes are compiled, a clip's first frame and a later piece, and a third for the rest of
a video that does not fill its last piece; memory depends on neither length nor cutting.

Read next: `Autoencoder.encode_piece`, the pure step that is repeated here.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.functional import Params


def encode_pieces(
    config: AutoencoderConfig,
    params: Params,
    video: Iterable[Float[Any, "b f H W 3"]],
    *,
    groups: int = 1,
) -> Iterator[Float[jax.Array, "b t h w c"]]:
    """Encode a video that comes in pieces.

    Args:
      config: Sizes of the autoencoder.
      params: Its parameters.
      video: Frames in [-1, 1], in pieces of any length; 1 + n * temporal stride in all.
      groups: Latent frames made at once; more take more memory and may be faster.

    Yields:
      The first latent frame, then `groups` at a time; at the end what is left.

    Raises:
      ValueError: If picture size or the number of all frames do not fit the strides; what was
        complete has been yielded by then.
    """
    cut = _cut(video, groups * config.temporal_stride)
    return _run(_compiled(config, "encode_piece"), params, cut)


def decode_pieces(
    config: AutoencoderConfig,
    params: Params,
    latents: Iterable[Float[Any, "b t h w c"]],
    *,
    groups: int = 1,
) -> Iterator[Float[jax.Array, "b f H W 3"]]:
    """Decode latents that come in pieces, e.g. one chunk of a rollout after the other.

    Args:
      config: Sizes of the autoencoder.
      params: Its parameters.
      latents: Normalised latents, in pieces of any length.
      groups: Latent frames decoded at once; more take more memory and may be faster.

    Yields:
      The first frame, then groups * temporal stride at a time; at the end what is left. A piece
      of latents is decoded before the next one is asked for, but for what does not fill a group.

    Raises:
      ValueError: If the number of channels is not the model's.
    """
    return _run(_compiled(config, "decode_piece"), params, _cut(latents, groups))


def _run(
    step: Callable[..., tuple[jax.Array, Any]], params: Params, pieces: Iterable[Any]
) -> Iterator[jax.Array]:
    past = None
    for piece in pieces:
        result, past = step(params, piece, past)
        yield result


@functools.lru_cache(maxsize=16)
def _compiled(config: AutoencoderConfig, method: str) -> Callable[..., tuple[jax.Array, Any]]:
    """Return the step as a compiled function; the past is used up, so its memory is reused."""

    def step(params: Params, piece: jax.Array, past: Any) -> tuple[jax.Array, Any]:
        return functional.apply(config, params, piece, past, method=method)

    return jax.jit(step, donate_argnums=2)


def _cut(pieces: Iterable[Any], length: int) -> Iterator[Any]:
    """Cut a run of arrays [b, f, ...] anew: one frame, then `length` at a time, then the rest."""
    held: list[Any] = []
    count, wanted = 0, 1
    for piece in pieces:
        held.append(piece)
        count += piece.shape[1]
        if count < wanted:
            continue
        rest = np.concatenate([np.asarray(part) for part in held], axis=1)
        while rest.shape[1] >= wanted:
            yield rest[:, :wanted]
            rest, wanted = rest[:, wanted:], length
        held, count = [rest], rest.shape[1]
    if count:
        yield np.concatenate([np.asarray(part) for part in held], axis=1)
