"""Linear maps between a token and its patch of pixels, for the placed read.

The small codec has such maps: its linear path. Of any other codec they are fitted, by ridge
regression of what still pictures show and how they are encoded, and kept with the learned read
(`LearnedReadConfig.patch`); the codec stays as it is. What a linear map cannot say of a token
is its residual, `unsaid`.

Conventions: tokens are those of a camera at rest, patches the last frame of their group, as one
plane for each colour: all red values, all green, all blue, each line by line, in [-1, 1].
Read next: `patch_read.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.learned_read import LearnedReadConfig

# Strength of the ridge over the mean variance of the inputs.
RIDGE = 1e-4


class PatchPath(NamedTuple):
    """Both maps.

    Attributes:
        pixels: [c, 3 * p] of a token to its patch.
        pixels_bias: [3 * p].
        tokens: [3 * p, c] of a patch to its token.
        tokens_bias: [c].
    """

    pixels: Float[jax.Array, "c q"]
    pixels_bias: Float[jax.Array, " q"]
    tokens: Float[jax.Array, "q c"]
    tokens_bias: Float[jax.Array, " c"]

    def to_planes(self, tokens: Float[jax.Array, "... c"]) -> Float[jax.Array, "... q"]:
        """Return the patches that tokens stand for."""
        return tokens @ self.pixels + self.pixels_bias

    def to_tokens(self, planes: Float[jax.Array, "... q"]) -> Float[jax.Array, "... c"]:
        """Return the tokens of patches."""
        return planes @ self.tokens + self.tokens_bias

    def unsaid(self, tokens: Float[jax.Array, "... c"]) -> Float[jax.Array, "... c"]:
        """Return what is lost of tokens that are made patches and tokens again."""
        return tokens - self.to_tokens(self.to_planes(tokens))


def check(codec: CodecConfig | AutoencoderConfig, read: LearnedReadConfig | None) -> None:
    """Check that a placed read has linear maps to place patches with.

    Raises:
        ValueError: if the learned read's `patch` does not fit the codec.
    """
    if read is None:
        return
    own = isinstance(codec, CodecConfig)
    expected = 0 if own or not read.placed else codec.spatial_stride
    if read.patch != expected:
        why = "the codec has a linear path of its own" if own else "the codec's spatial stride"
        raise ValueError(
            f"learned_read.patch: got {read.patch} with placed={read.placed} and a "
            f"{type(codec).__name__}, expected {expected}"
            + (f", {why}" if read.placed else "; only placed=True draws patches")
            + "; set it, and fit the maps with mirage train --stage read"
        )


def of(config: Any, params: Mapping[str, Any]) -> PatchPath:
    """Return the maps of a world: of its codec, or else those kept with its learned read.

    Args:
        config: has `codec` and `learned_read`.
        params: "codec", or "learned_read", is used.
    """
    if isinstance(config.codec, CodecConfig):
        return of_codec(config.codec, params["codec"])
    return of_read(params["learned_read"])


def of_codec(config: CodecConfig, params: Mapping[str, Any]) -> PatchPath:
    """Return the linear path of the small codec; gradients reach its parameters."""
    mean, std = (jnp.asarray(params[f"latent_{name}"]) for name in ("mean", "std"))
    out, back = params["synthesis"]["group"], params["analysis"]["group"]
    kernel = _colours_first(out["kernel"][:, -config.image_patch :])
    bias = _colours_first(out["bias"][-config.image_patch :])
    # A patch that stands still is the same in all frames of its group.
    sums = back["kernel"].reshape(config.temporal_stride, -1, config.latent_channels).sum(0)
    return PatchPath(
        pixels=std[:, None] * kernel,
        pixels_bias=mean @ kernel + bias,
        tokens=_colours_first(sums.T).T / std,
        tokens_bias=(back["bias"] - mean) / std,
    )


def of_read(params: Mapping[str, Any]) -> PatchPath:
    """Return the maps among the parameters of a learned read."""
    out, back = params["to_pixels"], params["to_tokens"]
    return PatchPath(out["kernel"], out["bias"], back["kernel"], back["bias"])


def with_path(params: Mapping[str, Any], path: PatchPath) -> dict[str, Any]:
    """Return the parameters of a learned read with other maps."""
    maps = {
        "to_pixels": {"kernel": path.pixels, "bias": path.pixels_bias},
        "to_tokens": {"kernel": path.tokens, "bias": path.tokens_bias},
    }
    return {**params, **maps}


class PatchFit:
    """Sums over tokens and their patches, as many as there may be, and the maps they give."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._sums: dict[str, np.ndarray] = {}

    def add(self, tokens: Float[np.ndarray, "... c"], planes: Float[np.ndarray, "... q"]) -> None:
        """Take tokens, and the patches that were seen where they are, into account."""
        pair = [_with_one(np.asarray(x, np.float64)) for x in (tokens, planes)]
        products = {"tt": (0, 0), "tp": (0, 1), "pp": (1, 1)}
        for name, (a, b) in products.items():
            self._sums[name] = self._sums.get(name, 0.0) + pair[a].T @ pair[b]

    def solve(self, ridge: float = RIDGE) -> PatchPath:
        """Return the maps of least squared error plus `ridge` times the size of their kernels.

        Raises:
            ValueError: if nothing was added.
        """
        if not self._sums:
            raise ValueError(
                "patch maps: got no tokens, expected those of some pictures; give clips to fit on"
            )
        out = _ridge(self._sums["tt"], self._sums["tp"][:, :-1], ridge)
        back = _ridge(self._sums["pp"], self._sums["tp"].T[:, :-1], ridge)
        parts = (out[:-1], out[-1], back[:-1], back[-1])
        return PatchPath(*(jnp.asarray(part, jnp.float32) for part in parts))


def planes_of(video: Float[np.ndarray, "n H W 3"], side: int) -> Float[np.ndarray, "n h w q"]:
    """Cut pictures into patches of planes, one for each cell of `side` pixels."""
    n, height, width, _ = video.shape
    cut = video.reshape(n, height // side, side, width // side, side, 3)
    return cut.transpose(0, 1, 3, 5, 2, 4).reshape(n, height // side, width // side, -1)


def _with_one(x: np.ndarray) -> np.ndarray:
    rows = x.reshape(-1, x.shape[-1])
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def _ridge(squares: np.ndarray, products: np.ndarray, ridge: float) -> np.ndarray:
    """Solve the normal equations; the last input is the constant one and is not held down."""
    count, size = squares[-1, -1], len(squares) - 1
    mean = squares[-1, :-1] / count
    variance = np.trace(squares[:-1, :-1]) / count - np.sum(mean**2)
    weight = np.full(len(squares), ridge * count * variance / size)
    weight[-1] = 0.0
    return np.linalg.lstsq(squares + np.diag(weight), products, rcond=None)[0]


def _colours_first(patch: jax.Array) -> jax.Array:
    """Turn patches [..., p * 3] into planes [..., 3 * p]."""
    return patch.reshape(*patch.shape[:-1], -1, 3).swapaxes(-1, -2).reshape(patch.shape)
