"""How a chunk is sampled: the number of solver steps, their spacing and the solver.

The same object is used by validation pictures in training and by `mirage generate`, so a model is
always judged with the sampler it is shipped with. Read next: `mirage_jax/diffusion/solvers.py`.
"""

from __future__ import annotations

import dataclasses

SOLVER_NAMES = ("unipc", "euler")


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Settings of the flow-matching sampler.

    Attributes:
        steps: solver steps of one chunk; each is one call of the denoiser (two with guidance).
        shift: the shift s of sigma = s u / (1 + (s - 1) u); larger spends more steps at high noise.
        solver: "unipc" (order 2, bh2) or "euler".
        guidance: classifier-free guidance weight of the text; 1.0 is off.
        integer_timesteps: tell the model whole timesteps, rounded down, as the release does.
    """

    steps: int = 4
    shift: float = 5.0
    solver: str = "unipc"
    guidance: float = 1.0
    integer_timesteps: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling.steps: got {self.steps}, expected at least 1; set it to 4")
        if not self.shift > 0:
            raise ValueError(
                f"sampling.shift: got {self.shift}, expected a positive number; the paper uses 5.0"
            )
        if self.solver not in SOLVER_NAMES:
            raise ValueError(
                f"sampling.solver: got {self.solver!r}, expected one of {', '.join(SOLVER_NAMES)}"
            )
        if not self.guidance >= 1.0:
            raise ValueError(f"sampling.guidance: got {self.guidance}, expected 1.0 (off) or more")


RELEASE = SamplingConfig(steps=20, integer_timesteps=True)
