"""Solvers that integrate a velocity from noise (sigma near 1) to data (sigma 0).

Conventions: a schedule is host data, sigmas [steps + 1] falling to 0 and timesteps [steps]. Each
solver step is linear in the state and in the clean predictions ``x - sigma * velocity``, so its
coefficients are worked out beforehand in float64 and one `jax.lax.scan` applies them to any
array. Held elements are set to their clean value before and after every step.

UniPC is that of Zhao et al. 2023 (arXiv 2302.04867): order 2, data prediction, B(h) = e^h - 1.

Read next: `mirage_jax/diffusion/flow.py` for the path that is integrated.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mirage_jax.diffusion.flow import NUM_TRAIN_TIMESTEPS, shift_sigma

VelocityFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# The state, the corrected state a step ago, and the two latest clean predictions.
_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


class Schedule(NamedTuple):
    """Noise levels that a solver visits.

    Attributes:
      sigmas: [steps + 1] float64, strictly falling, the last is where sampling ends (0).
      timesteps: [steps] float64, what the model is told at each of the first `steps` sigmas.
    """

    sigmas: Float[np.ndarray, "steps_plus_1"]
    timesteps: Float[np.ndarray, "steps"]


class Hold(NamedTuple):
    """Elements that stay at a known clean value while the rest is sampled.

    Attributes:
      mask: True = held; broadcastable to the sample.
      value: Clean value of held elements; broadcastable to the sample.
    """

    mask: Bool[jax.Array, "..."]
    value: Float[jax.Array, "..."]


def schedule(steps: int, shift: float = 5.0, *, integer_timesteps: bool = False) -> Schedule:
    """Return the noise levels of a sampling run.

    Even steps from 0.999, the highest level below 1 of a thousand, down to 0; then shifted.

    Args:
      steps: Number of solver steps, which is the number of model calls.
      shift: See `flow.shift_sigma`; the value the model was trained with.
      integer_timesteps: Truncate timesteps to whole numbers, as the release does.

    Returns:
      Schedule with sigmas [steps + 1] and timesteps [steps].

    Raises:
      ValueError: If steps is less than 1 or shift not positive.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(
            f"Schedule needs steps and shift above 0 - got steps={steps}, shift={shift} - "
            "expected e.g. steps=20, shift=5.0 - correct the sampling config."
        )
    top = 1.0 - 1.0 / NUM_TRAIN_TIMESTEPS
    sigmas = shift_sigma(np.linspace(top, 0.0, steps + 1), shift)
    timesteps = sigmas[:-1] * NUM_TRAIN_TIMESTEPS
    return Schedule(sigmas, np.floor(timesteps) if integer_timesteps else timesteps)


def sample(
    velocity_fn: VelocityFn,
    x: Float[jax.Array, "*shape"],
    schedule: Schedule,
    *,
    solver: str = "unipc",
    hold: Hold | None = None,
) -> Float[jax.Array, "*shape"]:
    """Integrate the velocity field from `x` at the first sigma to the last.

    Args:
      velocity_fn: ``velocity_fn(x, sigma, timestep) -> velocity`` of the shape of x; sigma and
        timestep are float32 scalars. Traced once.
      x: State at ``schedule.sigmas[0]``, noise.
      schedule: Noise levels, see `schedule`.
      solver: ``unipc`` or ``euler``.
      hold: Elements held clean before and after every step.

    Returns:
      State at the last sigma, of the shape and type of x.

    Raises:
      ValueError: If the solver is not known or the schedule is malformed.
    """
    return _run(velocity_fn, x, schedule, solver, hold)[0]


def sample_path(
    velocity_fn: VelocityFn,
    x: Float[jax.Array, "*shape"],
    schedule: Schedule,
    *,
    solver: str = "unipc",
    hold: Hold | None = None,
) -> Float[jax.Array, "steps *shape"]:
    """Integrate as `sample` does and return the state after every step.

    Args:
      velocity_fn: As in `sample`.
      x: As in `sample`.
      schedule: As in `sample`.
      solver: As in `sample`.
      hold: As in `sample`.

    Returns:
      States [steps, ...]; the last is what `sample` returns.

    Raises:
      ValueError: If the solver is not known or the schedule is malformed.
    """
    return _run(velocity_fn, x, schedule, solver, hold)[1]


def hold_first_frames(clean: Float[jax.Array, "b t h w c"], frames: int) -> Hold:
    """Hold the first `frames` latent frames at those of `clean`.

    Args:
      clean: Latents whose first frames are known; the rest is ignored.
      frames: Number of leading frames to hold; 0 holds none.

    Returns:
      Hold for `sample`.
    """
    mask = jnp.arange(clean.shape[1]) < frames
    return Hold(mask[None, :, None, None, None], clean)


class _Steps(NamedTuple):
    """Coefficients of every step, each [steps]; the step is linear in state and predictions."""

    sigma: np.ndarray
    timestep: np.ndarray
    # Correction of the state just reached, from the step's start and three predictions.
    correct_x: np.ndarray
    correct_start: np.ndarray
    correct_now: np.ndarray
    correct_last: np.ndarray
    correct_older: np.ndarray
    # Prediction of the next state.
    predict_x: np.ndarray
    predict_now: np.ndarray
    predict_last: np.ndarray


def _euler_steps(plan: Schedule) -> _Steps:
    """Write an Euler step, ``x + (next - sigma) * v``, by x and the clean prediction."""
    ratio = plan.sigmas[1:] / plan.sigmas[:-1]
    zero, one = np.zeros_like(ratio), np.ones_like(ratio)
    return _Steps(
        sigma=plan.sigmas[:-1],
        timestep=plan.timesteps,
        correct_x=one,
        correct_start=zero,
        correct_now=zero,
        correct_last=zero,
        correct_older=zero,
        predict_x=ratio,
        predict_now=1 - ratio,
        predict_last=zero,
    )


def _unipc_steps(plan: Schedule) -> _Steps:
    """Work out UniPC: correct the state reached with the new prediction, then predict the next."""
    steps = len(plan.timesteps)
    rows = []
    for i in range(steps):
        correct = (1.0, 0.0, 0.0, 0.0, 0.0)
        if i > 0:
            start, now, last, older = _corrector(plan.sigmas, i, _order(plan.sigmas, i - 1, steps))
            correct = (0.0, start, now, last, older)
        rows.append((*correct, *_predictor(plan.sigmas, i, _order(plan.sigmas, i, steps))))
    return _Steps(plan.sigmas[:-1], plan.timesteps, *np.asarray(rows).T)


SOLVERS: dict[str, Callable[[Schedule], _Steps]] = {"unipc": _unipc_steps, "euler": _euler_steps}


def _order(sigmas: np.ndarray, i: int, steps: int) -> int:
    """Order of step i: 1 at both ends, and where the older noise level is pure noise."""
    return 1 if i == 0 or i == steps - 1 or sigmas[i - 1] >= 1 else 2


def _log_snr(sigma: float) -> float:
    if sigma <= 0:
        return math.inf
    return -math.inf if sigma >= 1 else math.log1p(-sigma) - math.log(sigma)


def _predictor(sigmas: np.ndarray, i: int, order: int) -> tuple[float, float, float]:
    """Coefficients of x, the prediction at i and the one at i - 1 for the state at i + 1."""
    here, there = _log_snr(sigmas[i]), _log_snr(sigmas[i + 1])
    gain = -(1 - sigmas[i + 1]) * math.expm1(here - there)
    older = 0.0
    if order == 2:
        older = 0.5 * gain * (there - here) / (_log_snr(sigmas[i - 1]) - here)
    return sigmas[i + 1] / sigmas[i], gain - older, older


def _corrector(sigmas: np.ndarray, i: int, order: int) -> tuple[float, float, float, float]:
    """Coefficients of the state at i - 1 and the predictions at i, i - 1, i - 2."""
    start, here = _log_snr(sigmas[i - 1]), _log_snr(sigmas[i])
    gain = -(1 - sigmas[i]) * math.expm1(start - here)
    now, older = 0.5 * gain, 0.0
    if order == 2:
        ratio = (_log_snr(sigmas[i - 2]) - start) / (here - start)
        first, second = _moments(here - start)
        # Two unknown weights that reproduce polynomials of degree 0 and 1 in log-SNR.
        weight_older, weight_now = np.linalg.solve([[1.0, 1.0], [ratio, 1.0]], [first, second])
        now, older = gain * weight_now, gain * weight_older / ratio
    return sigmas[i] / sigmas[i - 1], now, gain - now - older, older


def _moments(h: float) -> tuple[float, float]:
    """Right-hand sides of the corrector's system for B(h) = e^h - 1, data prediction."""
    base = math.expm1(-h)
    first = base / -h - 1
    second = first / -h - 0.5
    return first / base, 2 * second / base


def _run(
    velocity_fn: VelocityFn, x: jax.Array, plan: Schedule, solver: str, hold: Hold | None
) -> tuple[jax.Array, jax.Array]:
    if solver not in SOLVERS:
        raise ValueError(
            f"Solver is not known - got {solver!r} - expected one of {tuple(SOLVERS)} - "
            "correct the sampling config."
        )
    _check(plan)

    def keep(state: jax.Array) -> jax.Array:
        if hold is None:
            return state
        return jnp.where(hold.mask, hold.value, state).astype(state.dtype)

    def step(carry: _Carry, k: Any) -> tuple[_Carry, jax.Array]:
        state, start, last, older = carry
        state = keep(state)
        velocity = velocity_fn(state.astype(x.dtype), k.sigma, k.timestep)
        now = state - k.sigma * velocity.astype(state.dtype)
        corrected = k.correct_x * state + k.correct_start * start
        corrected += k.correct_now * now + k.correct_last * last + k.correct_older * older
        following = k.predict_x * corrected + k.predict_now * now + k.predict_last * last
        following = keep(following)
        return (following, corrected, now, last), following.astype(x.dtype)

    state = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    blank = jnp.zeros_like(state)
    coefficients = jax.tree.map(lambda c: jnp.asarray(c, state.dtype), SOLVERS[solver](plan))
    carry, path = jax.lax.scan(step, (state, blank, blank, blank), coefficients)
    return carry[0].astype(x.dtype), path


def _check(plan: Schedule) -> None:
    sigmas = np.asarray(plan.sigmas)
    falls = sigmas.ndim == 1 and len(sigmas) > 1 and bool(np.all(np.diff(sigmas) < 0))
    if not falls or sigmas[0] > 1 or sigmas[-1] < 0:
        raise ValueError(
            f"Schedule sigmas are malformed - got {sigmas} - expected at least 2 strictly falling "
            "values in [0, 1] - build them with diffusion.solvers.schedule."
        )
    if np.shape(plan.timesteps) != (len(sigmas) - 1,):
        raise ValueError(
            f"Schedule timesteps do not fit - got shape {np.shape(plan.timesteps)} - expected "
            f"({len(sigmas) - 1},), one per step - build them with diffusion.solvers.schedule."
        )
