"""LPIPS version 0.1, with its true weights or not at all.

Pictures in [-1, 1], at their own size, through the first five stages of AlexNet or VGG16; features
are normalised over channels, their squared differences weighted by the heads, averaged over the
picture and added over stages. Published numbers are mostly of `alex`; names of values say the net
(`lpips_alex`), and no other number ever has such a name.
Read next: `lpips_files.py` for the weights.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.eval.metrics.lpips_files import load_weights

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Of each convolution: stride, padding, whether 3x3 pooling by 2 follows.
_ALEX = ((4, 2, True), (1, 2, True), (1, 1, False), (1, 1, False), (1, 1, False))
# Convolutions of VGG16 before each pooling.
_VGG = (2, 2, 3, 3, 3)
_BATCH = 8


class Lpips:
    """Distance of pictures as LPIPS 0.1 measures it.

    Attributes:
        name: key of its values, `lpips_alex` or `lpips_vgg`.
        path: of the weights.
        checksum: of the weights.
    """

    def __init__(self, path: str | Path) -> None:
        """Read weights, see `load_weights` for what is accepted."""
        net, arrays = load_weights(path)
        self.path = Path(path)
        self.name = f"lpips_{net}"
        data = b"".join(arrays[name].tobytes() for name in sorted(arrays))
        self.checksum = f"{net}-{zlib.crc32(data):08x}"
        self._weights = {name: jnp.asarray(value) for name, value in arrays.items()}
        self._distance = jax.jit(functools.partial(_distance, net))

    def __call__(
        self, a: UInt8[np.ndarray, "f H W 3"], b: UInt8[np.ndarray, "f H W 3"]
    ) -> Float[np.ndarray, " f"]:
        """Return the distance of each pair of pictures; 0 for equal ones."""
        values: list[np.ndarray] = []
        for first in range(0, len(a), _BATCH):
            pair = [_padded(x[first : first + _BATCH]) for x in (a, b)]
            values.append(np.asarray(self._distance(self._weights, *pair)))
        return np.concatenate(values)[: len(a)]


def _padded(pictures: np.ndarray) -> np.ndarray:
    """Repeat the last picture up to the batch that is compiled for."""
    order = np.minimum(np.arange(_BATCH), len(pictures) - 1)
    return np.asarray(pictures, np.float32)[order] / 127.5 - 1.0


def _distance(net: str, weights: dict[str, Any], a: Any, b: Any) -> jax.Array:
    features = _alex if net == "alex" else _vgg
    shift, scale = jnp.asarray(_SHIFT), jnp.asarray(_SCALE)
    total = jnp.zeros(a.shape[0])
    pairs = zip(
        features(weights, (a - shift) / scale), features(weights, (b - shift) / scale), strict=True
    )
    for index, (x, y) in enumerate(pairs):
        difference = jnp.square(_normalized(x) - _normalized(y))
        total += jnp.mean(difference @ weights[f"head{index}"], axis=(1, 2))
    return total


def _normalized(x: jax.Array) -> jax.Array:
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + 1e-10)


def _alex(weights: dict[str, Any], x: jax.Array) -> list[jax.Array]:
    features = []
    for index, (stride, padding, pooled) in enumerate(_ALEX):
        x = _convolve(weights, index, x, stride, padding)
        features.append(x)
        if pooled:
            x = _pool(x, 3)
    return features


def _vgg(weights: dict[str, Any], x: jax.Array) -> list[jax.Array]:
    features, index = [], 0
    for stage, count in enumerate(_VGG):
        if stage:
            x = _pool(x, 2)
        for _ in range(count):
            x = _convolve(weights, index, x, 1, 1)
            index += 1
        features.append(x)
    return features


def _convolve(
    weights: dict[str, Any], index: int, x: jax.Array, stride: int, padding: int
) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x,
        weights[f"conv{index}.kernel"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y + weights[f"conv{index}.bias"])


def _pool(x: jax.Array, side: int) -> jax.Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, side, side, 1), (1, 2, 2, 1), "VALID"
    )
