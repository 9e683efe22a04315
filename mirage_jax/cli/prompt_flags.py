"""The flags of text: which prompts a rollout follows, and where their embeddings come from.

Embeddings are read from a text cache, or made by the world's text encoder, which is loaded, run and
freed before the caller loads anything else. The work is in `mirage_jax/rollout/prompts.py`,
`mirage_jax/data/text_cache.py` and `mirage_jax/models/encode_text.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from mirage_jax.rollout.chunk import Prompt
    from mirage_jax.rollout.prompts import PromptPlan
    from mirage_jax.rollout.world import WorldSpec

_PATH = click.Path(path_type=Path)
_FLAGS = (
    click.option(
        "--prompt",
        multiple=True,
        help="What the video shows; repeated: chunk after chunk, the last goes on.",
    ),
    click.option(
        "--prompt-file",
        type=_PATH,
        help='One prompt a line, chunk after chunk, or .jsonl: {"chunk": 3, "prompt": "..."}.',
    ),
    click.option("--negative-prompt", help="What guidance leads away from; default: empty."),
    click.option("--texts", type=_PATH, help="Text cache of mirage encode text."),
    click.option(
        "--text-encoder",
        type=_PATH,
        help="Without --texts: weights of the text encoder; default: in the world's folder.",
    ),
    click.option("--tokenizer", type=_PATH, help="Its tokenizer; default: beside its weights."),
)


class Followed(NamedTuple):
    """The prompts of a rollout, in words and as embeddings."""

    plan: PromptPlan
    prompt: Prompt


def prompt_flags(command: Any) -> Any:
    """Add the flags of text to a click command, which gets them by keyword."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def resolve_prompts(flags: dict[str, Any], spec: WorldSpec, folder: Path) -> Followed | None:
    """Return what a rollout follows; None for a world that reads no text.

    Args:
        flags: values of `prompt_flags` by name.
        spec: of the world, with the guidance that will be used.
        folder: of the world; where a text encoder is looked for.

    Raises:
        ValueError: prompts for a world that reads none, or prompts that are not in the cache.
        FileNotFoundError: neither a cache nor a text encoder is there.
    """
    from mirage_jax.rollout.prompts import embed_plan

    if not spec.denoiser.text_width:
        given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value]
        if given:
            raise ValueError(
                f"{', '.join(given)}: got a prompt for the world {spec.name!r}, which reads no "
                "text; leave it out, or choose a world whose denoiser has a text_width"
            )
        return None
    plan = _plan(flags["prompt"], flags["prompt_file"])
    guided = spec.sampling.guidance != 1.0
    negative = (flags["negative_prompt"] or "") if guided else None
    if flags["negative_prompt"] and not guided:
        raise ValueError("--negative-prompt: got one without guidance; set --guidance above 1")
    wanted = [*plan.prompts, *([negative] if negative is not None else [])]
    return Followed(plan, embed_plan(plan, _embeddings(flags, spec, folder, wanted), negative))


def _plan(prompts: tuple[str, ...], file: Path | None) -> PromptPlan:
    from mirage_jax.rollout.prompts import PromptPlan, chunk_after_chunk, read_prompts

    if prompts and file:
        raise ValueError("--prompt: got one beside --prompt-file, expected one of the two")
    if file:
        return read_prompts(file)
    return chunk_after_chunk(prompts) if prompts else PromptPlan()


def _embeddings(flags: dict[str, Any], spec: WorldSpec, folder: Path, wanted: list[str]) -> Any:
    """Return something that gives the padded embedding of each wanted prompt by its text."""
    if flags["texts"]:
        from mirage_jax.data.text_cache import open_texts

        cache = open_texts(flags["texts"], width=spec.denoiser.text_width)
        cache.require(wanted)
        return cache
    from mirage_jax.models.encode_text import WEIGHTS, embed_prompts

    source = flags["text_encoder"] or folder
    if source.is_dir() and not (source / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"--texts: the world {spec.name!r} reads text and {source} holds no {WEIGHTS}; give a "
            "text cache with --texts (mirage encode text makes one), or a --text-encoder"
        )
    width = spec.denoiser.text_width
    return embed_prompts(source, flags["tokenizer"], wanted, width=width)
