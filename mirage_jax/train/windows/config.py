"""Settings of training windows: how they are drawn and how noisy they are made.

Read next: `mirage_jax/train/windows/draw.py` (the draw), `mirage_jax/train/windows/inputs.py` (the
noise).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """How windows are drawn.

    Attributes:
        memory_frames: most frames a memory is made of; the number is uniform from 1 up.
        first_fraction: share of a batch that are first chunks of a rollout.
        return_fraction: share of windows whose memory holds frames of the way out.
        memory_off: share of windows without any memory.
        still_fraction: share of windows in which the camera rests at the first target frame.
        references: draw reference frames, up to the most that a rollout's chunks have; the train
            step is compiled once for each number of them.
        text_dropout: share of windows that follow the empty prompt instead of their clip's caption.
    """

    memory_frames: int = 6
    first_fraction: float = 0.25
    return_fraction: float = 0.5
    memory_off: float = 0.1
    still_fraction: float = 0.1
    references: bool = False
    text_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.memory_frames < 1:
            raise ValueError(f"windows.memory_frames: got {self.memory_frames}, expected 1 or more")
        shares = ("first_fraction", "return_fraction", "memory_off", "still_fraction")
        for name in (*shares, "text_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"windows.{name}: got {getattr(self, name)}, expected a share in [0, 1]"
                )

    def num_first(self, batch: int) -> int:
        """Rows of a batch that are first chunks."""
        return round(self.first_fraction * batch)


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """What is added to clean training data so that it looks like a rollout's own output.

    Attributes:
        token: most noise on remembered tokens, in standard deviations of a latent channel; the
            level of each frame is uniform from 0.
        frame_depth: standard deviation of the log of a whole frame's depth.
        cell_depth: standard deviation of the log of a cell's depth.
        context: most noise on the clean first and the preceding frames.
    """

    token: float = 0.2
    frame_depth: float = 0.02
    cell_depth: float = 0.02
    context: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(
                    f"noise.{field.name}: got {getattr(self, field.name)}, expected 0 or more"
                )
