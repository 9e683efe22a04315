"""Which prompt each chunk of a rollout follows.

A prompt holds from its chunk on until the next one. A prompt file is either text, one prompt a
line, chunk after chunk (blank lines are skipped, the last prompt goes on), or, with the suffix
`.jsonl`, objects `{"chunk": 3, "prompt": "..."}`, which say from which chunk on a prompt holds.
Chunks count from 0.

Read next: `mirage_jax/models/encode_text.py` and `mirage_jax/data/text_cache.py` for embeddings.
"""

import bisect
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mirage_jax.rollout.chunk import Prompt


@dataclasses.dataclass(frozen=True)
class PromptPlan:
    """The prompts of a rollout.

    Attributes:
        starts: chunk from which on each prompt holds; increasing, the first is 0.
        prompts: as many.
    """

    starts: tuple[int, ...] = (0,)
    prompts: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.starts, self.starts[1:], strict=False))
        if len(self.starts) != len(self.prompts) or self.starts[:1] != (0,) or not increasing:
            raise ValueError(
                f"prompts: got {len(self.prompts)} prompts for the chunks {self.starts}, expected "
                "one for each of increasing chunks, the first of them 0; say what chunk 0 follows"
            )

    def at(self, chunk: int) -> str:
        """Return the prompt of a chunk."""
        return self.prompts[bisect.bisect_right(self.starts, chunk) - 1]


def chunk_after_chunk(prompts: Sequence[str]) -> PromptPlan:
    """Return the plan of one prompt a chunk; the last one goes on."""
    return PromptPlan(tuple(range(len(prompts))), tuple(prompts))


def read_prompts(path: str | os.PathLike[str]) -> PromptPlan:
    """Read a prompt file; see the module docstring.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, not UTF-8, or a line is not as it should be; names the line.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"--prompt-file: got {path}, expected a text file with one prompt a line, or a .jsonl"
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise ValueError(f"{path}: got no prompt, expected at least one line")
    if file.suffix != ".jsonl":
        return chunk_after_chunk([line for _, line in lines])
    entries = sorted((_parse(line, f"{path}, line {number}") for number, line in lines))
    return PromptPlan(tuple(chunk for chunk, _ in entries), tuple(prompt for _, prompt in entries))


class Embeddings(Protocol):
    """What knows the padded embedding [n, dt] of a prompt: a text cache, or a dict."""

    def __getitem__(self, prompt: str, /) -> Any:
        """Return the embedding."""
        ...


def embed_plan(plan: PromptPlan, embeddings: Embeddings, negative: str | None = None) -> Prompt:
    """Return a plan as the rollout takes it.

    Args:
        plan: prompt of each chunk.
        embeddings: of all its prompts, and of the negative one.
        negative: what guidance leads away from; None without guidance.
    """
    text = np.stack([embeddings[plan.at(chunk)] for chunk in range(plan.starts[-1] + 1)])
    return Prompt(text, None if negative is None else np.asarray(embeddings[negative]))


def _parse(line: str, where: str) -> tuple[int, str]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        entry = str(error)
    if not isinstance(entry, dict) or entry.keys() != {"chunk", "prompt"}:
        raise ValueError(
            f'{where}: got {entry!r}, expected an object {{"chunk": 0, "prompt": "..."}}'
        )
    chunk, prompt = entry["chunk"], entry["prompt"]
    if type(chunk) is not int or chunk < 0 or not isinstance(prompt, str):
        raise ValueError(
            f"{where}: got chunk {chunk!r} and prompt {prompt!r}, expected a whole number from 0 "
            "on and a string"
        )
    return chunk, prompt
