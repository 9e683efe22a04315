"""Random draws as pure functions of (seed, step, purpose).

No key is stored, split or passed between steps: whoever needs randomness names the seed, the step
and what the draw is for, and gets the same draw on every host and after every resume.

`key_for` serves JAX code, `generator_for` the NumPy code of `mirage_jax.data`. JAX is imported
inside `key_for` only, so data code can use this module without loading it.
"""

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import jax


class Purpose(enum.IntEnum):
    """What a draw is for. Append only: a changed number changes every result that used it."""

    INIT_CODEC = 0
    INIT_DEPTH_HEAD = 1
    INIT_DENOISER = 2
    INIT_LEARNED_READ = 3
    CLIP_ORDER = 4
    CLIP_WINDOW = 5
    SIGMA = 6
    NOISE = 7
    MEMORY_FRAMES = 8
    MEMORY_NOISE = 9
    CONDITION_DROP = 10
    SAMPLE = 11
    VALIDATION = 12
    RECORD = 13
    AUGMENT = 14
    EVALUATION = 15
    TRAIN_LOSS = 16
    INIT_LORA = 17
    TEXT_DROPOUT = 18


def key_for(seed: "int | jax.Array", step: "int | jax.Array", purpose: Purpose) -> "jax.Array":
    """Returns the typed JAX key of one draw.

    Args:
        seed: seed of the whole run.
        step: training step, chunk index or whatever counts the draws; may be traced.
        purpose: what the draw is for; draws of different purposes are independent.

    Returns:
        A scalar typed PRNG key.

    Raises:
        TypeError: `purpose` is not a `Purpose`.
    """
    import jax

    _check_purpose(purpose)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), int(purpose)), step)


def generator_for(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """Returns the NumPy generator of one draw; the counterpart of `key_for` without JAX.

    Args:
        seed: seed of the whole run, not negative.
        step: what counts the draws, not negative.
        purpose: what the draw is for.

    Returns:
        A fresh generator. Its stream is unrelated to the one `key_for` gives.

    Raises:
        TypeError: `purpose` is not a `Purpose`.
        ValueError: `seed` or `step` is negative.
    """
    _check_purpose(purpose)
    if seed < 0 or step < 0:
        raise ValueError(f"generator_for: got seed {seed} and step {step}, expected both >= 0")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, int(purpose), step])))


def _check_purpose(purpose: Any) -> None:
    if not isinstance(purpose, Purpose):
        raise TypeError(
            f"prng: purpose is {purpose!r}, expected a mirage_jax.prng.Purpose; a new purpose is "
            "appended to that enum"
        )
