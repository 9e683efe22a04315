"""What clips say in words: their captions, as embeddings, with text dropout.

A clip may carry a caption (`clip.py`); one without it follows the empty prompt. Embeddings come
from a text cache, so no training loads a text encoder. Dropout replaces a clip's caption by the
empty prompt, the one that guidance compares with; its draw is a function of (seed, step).

Read next: `text_cache.py`.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mirage_jax.data.clip import CAPTION
from mirage_jax.data.source import open_clips, split_names
from mirage_jax.data.text_cache import TextCache
from mirage_jax.prng import Purpose, generator_for

NO_PROMPT = ""


@dataclasses.dataclass(frozen=True)
class ClipTexts:
    """Embeddings of the captions of clips.

    Attributes:
        cache: holds every caption and the empty prompt.
        captions: of each clip.
    """

    cache: TextCache
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        self.cache.require([NO_PROMPT, *self.captions])

    def embed(self, clips: Iterable[int], dropped: np.ndarray | None = None) -> np.ndarray:
        """Return the padded embeddings [b, length, d] of clips.

        Args:
            clips: index of each row's clip.
            dropped: [b] True where the empty prompt takes the caption's place; None for nowhere.
        """
        prompts = [self.captions[int(clip)] for clip in clips]
        if dropped is not None:
            prompts = [NO_PROMPT if d else p for p, d in zip(prompts, dropped, strict=True)]
        return np.stack([self.cache[prompt] for prompt in prompts])


def clip_captions(clips: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the caption of every clip of a source, the empty prompt where there is none."""
    return tuple(clip.get(CAPTION, NO_PROMPT) for clip in clips)


def recorded_captions(directory: str | os.PathLike[str]) -> list[str]:
    """Return the distinct captions of all splits of a recorded data set, in order.

    Raises:
        FileNotFoundError: the folder holds no finished recording.
    """
    found: dict[str, None] = {}
    for split in split_names(directory):
        clips = open_clips(directory, split)
        found |= dict.fromkeys(clip_captions(clips[index] for index in range(len(clips))))
    return list(found)


def draw_dropped(seed: int, step: int, batch: int, share: float) -> np.ndarray:
    """Return which rows of a batch lose their caption: [batch] bool, True for about `share`."""
    return generator_for(seed, step, Purpose.TEXT_DROPOUT).random(batch) < share
