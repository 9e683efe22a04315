"""The colour a token stands for: what the codec decodes it to, on average.

Read next: `decode.py`.
"""

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.rollout.decode import decode_latents
from mirage_jax.rollout.world import World

# Tokens decoded one by one; the colours of all others follow from a linear fit to these.
_SAMPLE = 2048
# Cells of the plain picture that a token is decoded in: the middle cell has its neighbours.
_SIDE = 3


def token_colors(world: World, tokens: Float[np.ndarray, "n c"]) -> UInt8[np.ndarray, "n 3"]:
    """Return the mean colour of each token's cell.

    Each of up to 2048 tokens, evenly spread, is decoded as a picture of nothing else; tokens are
    close to linear in their mean colour, and the rest follow from a least-squares fit.

    Args:
        world: Its codec decodes.
        tokens: Of that codec, as they are stored.
    """
    tokens = np.asarray(tokens, np.float32)
    if not len(tokens):
        return np.zeros((0, 3), np.uint8)
    chosen = np.linspace(0, len(tokens) - 1, min(_SAMPLE, len(tokens))).astype(int)
    decoded = _decode_alone(world, tokens[chosen])
    if len(chosen) == len(tokens):
        return np.rint(decoded).astype(np.uint8)
    known = np.concatenate([tokens[chosen], np.ones((len(chosen), 1), np.float32)], axis=1)
    weights, *_ = np.linalg.lstsq(known, decoded, rcond=None)
    colors = tokens @ weights[:-1] + weights[-1]
    return np.rint(np.clip(colors, 0, 255)).astype(np.uint8)


def _decode_alone(world: World, tokens: Float[np.ndarray, "k c"]) -> Float[np.ndarray, "k 3"]:
    plain = np.broadcast_to(
        tokens[:, None, None, None], (len(tokens), 1, _SIDE, _SIDE, tokens.shape[1])
    )
    frames = decode_latents(world, plain)[:, 0]
    stride = world.spec.codec.spatial_stride
    middle = slice(_SIDE // 2 * stride, (_SIDE // 2 + 1) * stride)
    return frames[:, middle, middle].astype(np.float32).mean(axis=(1, 2))
