"""Flow matching: noising, targets, how noise levels are drawn, and the loss.

Conventions: ``sigma`` in [0, 1] is the share of noise, 0 = clean. A noisy latent is
``(1 - sigma) * x + sigma * noise``, the velocity along the path is ``noise - x``, and the model's
timestep is ``1000 * sigma``. Every latent frame has its own sigma, shape [b, t]; frames given
clean (the first of a chunk) have sigma 0 and no loss. Latents are channel-last [b, t, h, w, c].

Read next: `mirage_jax/diffusion/solvers.py`, which integrates the velocity from noise to data.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

NUM_TRAIN_TIMESTEPS = 1000
DISTRIBUTIONS = ("uniform", "logit_normal")
WEIGHTINGS = ("uniform", "bell")


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """How training draws and weighs noise levels.

    Attributes:
      shift: Stretch of the noise levels towards 1; 1 leaves them as drawn (paper: 5).
      distribution: ``uniform`` or ``logit_normal`` (standard normal through a sigmoid).
      clean_frames: Number of leading latent frames that stay clean, with sigma 0.
      shared_fraction: Probability that all frames of a clip share one draw, as they do while
        sampling; otherwise each latent frame draws its own.
      weighting: ``uniform``, or ``bell``: more weight on the middle noise levels.
    """

    shift: float = 5.0
    distribution: str = "uniform"
    clean_frames: int = 1
    shared_fraction: float = 0.0
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        """Check the values, naming the key that is wrong."""
        if self.shift <= 0:
            raise ValueError(
                f"FlowConfig.shift must be positive - got {self.shift} - expected e.g. 5.0 - "
                "use 1.0 for no shift."
            )
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(_unknown("distribution", self.distribution, DISTRIBUTIONS))
        if self.weighting not in WEIGHTINGS:
            raise ValueError(_unknown("weighting", self.weighting, WEIGHTINGS))
        if self.clean_frames < 0:
            raise ValueError(
                f"FlowConfig.clean_frames must not be negative - got {self.clean_frames} - "
                "expected 0 or more - use 1 to condition on the first frame."
            )
        if not 0.0 <= self.shared_fraction <= 1.0:
            raise ValueError(
                f"FlowConfig.shared_fraction is a probability - got {self.shared_fraction} - "
                "expected a value in [0, 1] - use 0 for one draw per frame."
            )


def shift_sigma(u: Float[Any, "..."], shift: float) -> Float[Any, "..."]:
    """Stretch noise levels towards 1: ``shift * u / (1 + (shift - 1) * u)``.

    Args:
      u: Noise levels in [0, 1], any shape; NumPy and JAX arrays alike.
      shift: Positive; 1 is the identity.

    Returns:
      Noise levels in [0, 1] of the same shape; 0 and 1 stay where they are.
    """
    return shift * u / (1 + (shift - 1) * u)


def draw_sigma(
    key: jax.Array, batch: int, frames: int, *, config: FlowConfig
) -> Float[jax.Array, "b t"]:
    """Draw one noise level per latent frame.

    Args:
      key: JAX random key.
      batch: Number of clips b.
      frames: Number of latent frames t.
      config: Distribution, shift, clean frames and share of clips with one common draw.

    Returns:
      Sigma [b, t]; the first `config.clean_frames` columns are 0.
    """
    frame_key, shared_key, choice_key = jax.random.split(key, 3)
    draw = jax.random.uniform if config.distribution == "uniform" else _logit_normal
    shared = draw(shared_key, (batch, 1))
    use_shared = jax.random.bernoulli(choice_key, config.shared_fraction, (batch, 1))
    u = jnp.where(use_shared, shared, draw(frame_key, (batch, frames)))
    return jnp.where(_is_noised(frames, config), shift_sigma(u, config.shift), 0.0)


def add_noise(
    x: Float[jax.Array, "b t h w c"],
    noise: Float[jax.Array, "b t h w c"],
    sigma: Float[jax.Array, "..."],
) -> Float[jax.Array, "b t h w c"]:
    """Mix clean latents with noise: ``(1 - sigma) * x + sigma * noise``.

    Args:
      x: Clean latents.
      noise: Standard normal noise of the same shape.
      sigma: Noise level [b, t] of each latent frame; a scalar is one level for all.

    Returns:
      Noisy latents of the same shape.
    """
    sigma = _over_cells(sigma, x)
    return (1 - sigma) * x + sigma * noise


def velocity_target(
    x: Float[jax.Array, "*shape"], noise: Float[jax.Array, "*shape"]
) -> Float[jax.Array, "*shape"]:
    """Return what the model regresses: ``noise - x``, the derivative of the path by sigma."""
    return noise - x


def timestep_of(sigma: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """Return the model's timestep, ``1000 * sigma``, in [0, 1000]; it is not rounded."""
    return sigma * NUM_TRAIN_TIMESTEPS


def clean_from_velocity(
    velocity: Float[jax.Array, "b t h w c"],
    noisy: Float[jax.Array, "b t h w c"],
    sigma: Float[jax.Array, "..."],
) -> Float[jax.Array, "b t h w c"]:
    """Return the clean latents that a velocity points to: ``noisy - sigma * velocity``.

    Args:
      velocity: Velocity at the noisy latents.
      noisy: Noisy latents.
      sigma: Noise level [b, t] of each latent frame, or a scalar.

    Returns:
      Clean latents of the same shape.
    """
    return noisy - _over_cells(sigma, noisy) * velocity


def velocity_from_clean(
    clean: Float[jax.Array, "b t h w c"],
    noisy: Float[jax.Array, "b t h w c"],
    sigma: Float[jax.Array, "..."],
    *,
    min_sigma: float = 0.02,
) -> Float[jax.Array, "b t h w c"]:
    """Return the velocity that a prediction of the clean latents stands for.

    The exact inverse of `clean_from_velocity`, ``(noisy - clean) / sigma``, grows without bound
    as sigma goes to 0; below `min_sigma` the divisor stays there, so the velocity fades to
    ``(noisy - clean) / min_sigma``.

    Args:
      clean: Predicted clean latents.
      noisy: The latents the prediction was made from.
      sigma: Noise level [b, t] of each latent frame, or a scalar.
      min_sigma: Smallest divisor, positive.

    Returns:
      Velocity of the same shape.
    """
    return (noisy - clean) / jnp.maximum(_over_cells(sigma, noisy), min_sigma)


def loss_weight(sigma: Float[jax.Array, "b t"], weighting: str) -> Float[jax.Array, "b t"]:
    """Return the weight of each frame's loss by its noise level.

    Args:
      sigma: Noise level of each latent frame.
      weighting: ``uniform`` (all 1) or ``bell``: ``exp(-2 (sigma - 1/2)^2)`` less its value at
        the ends, scaled to mean 1 over sigma in [0, 1].

    Returns:
      Weights [b, t], not negative.

    Raises:
      ValueError: If the weighting is not known.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(_unknown("weighting", weighting, WEIGHTINGS))
    if weighting == "uniform":
        return jnp.ones_like(sigma)
    end, mean = 0.60653066, 0.85562439  # exp(-1/2), and sqrt(pi/2) * erf(sqrt(1/2))
    return jnp.maximum(jnp.exp(-2 * (sigma - 0.5) ** 2) - end, 0.0) / (mean - end)


def flow_loss(
    prediction: Float[jax.Array, "b t h w c"],
    target: Float[jax.Array, "b t h w c"],
    mask: Bool[jax.Array, "b t"],
    *,
    weight: Float[jax.Array, "b t"] | None = None,
) -> Float[jax.Array, ""]:
    """Return the mean squared error over the frames that count.

    Args:
      prediction: Predicted velocity.
      target: Its target, see `velocity_target`.
      mask: True = the frame counts. Frames given clean do not.
      weight: Weight of each frame, see `loss_weight`; none is 1 for all.

    Returns:
      Scalar: sum of weighted frame errors over the number of counted frames; 0 if none counts.
    """
    losses = row_losses(prediction, target, mask, weight=weight)
    counted = jnp.sum(mask, axis=-1)
    return jnp.sum(losses * counted) / jnp.maximum(jnp.sum(counted), 1.0)


def row_losses(
    prediction: Float[jax.Array, "b t h w c"],
    target: Float[jax.Array, "b t h w c"],
    mask: Bool[jax.Array, "b t"],
    *,
    weight: Float[jax.Array, "b t"] | None = None,
) -> Float[jax.Array, "b"]:
    """Return the loss of each clip alone [b]; see `flow_loss`."""
    error = jnp.square(prediction - target).mean(axis=(-3, -2, -1), dtype=jnp.float32)
    keep = mask.astype(error.dtype)
    scale = keep if weight is None else keep * weight
    return jnp.sum(error * scale, axis=-1) / jnp.maximum(jnp.sum(keep, axis=-1), 1.0)


def noised_frames(batch: int, frames: int, *, config: FlowConfig) -> Bool[jax.Array, "b t"]:
    """Return which frames are noised, hence count in the loss: all but the clean ones."""
    return jnp.broadcast_to(_is_noised(frames, config), (batch, frames))


def _is_noised(frames: int, config: FlowConfig) -> jax.Array:
    return jnp.arange(frames) >= config.clean_frames


def _logit_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.nn.sigmoid(jax.random.normal(key, shape))


def _over_cells(sigma: jax.Array, x: jax.Array) -> jax.Array:
    """Give a per-frame value the trailing axes h, w, c of the latents it multiplies."""
    sigma = jnp.asarray(sigma, x.dtype)
    return sigma if sigma.ndim == 0 else sigma[..., None, None, None]


def _unknown(name: str, got: str, known: tuple[str, ...]) -> str:
    return f"Flow {name} is not known - got {got!r} - expected one of {known} - pick one of them."
