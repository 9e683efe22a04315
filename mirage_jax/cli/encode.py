"""`mirage encode`: prepares what training and generation read instead of running large encoders.

`text` puts the embeddings of prompts into a cache, see `mirage_jax/data/text_cache.py`; the work is
in `mirage_jax/models/encode_text.py`.
"""

from __future__ import annotations

from pathlib import Path

import click

# Prompts of one file of a cache: what a stopped command loses at most.
_GROUP = 256


@click.group(help="Encode prompts once, for training and generation to read.")
def command() -> None:
    """Groups what can be encoded."""


@command.command()
@click.option(
    "--weights",
    required=True,
    type=click.Path(path_type=Path),
    help="Text encoder of mirage convert, or the folder of a world with one.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="tokenizer.json or a sentencepiece .model; default: beside the weights.",
)
@click.option("--prompt", "prompts", multiple=True, help="A prompt; repeatable.")
@click.option(
    "--prompt-file",
    "prompt_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="One prompt a line, or .jsonl as mirage generate takes it; repeatable.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Recorded data set: the captions of all its clips, for training.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Cache to add to: a .safetensors file, or a folder for more than a few hundred prompts.",
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16")),
    help="Of the computation; default: as the encoder's config says.",
)
@click.option(
    "--store",
    type=click.Choice(("bfloat16", "float32")),
    default="bfloat16",
    show_default=True,
    help="Of the embeddings in the cache.",
)
def text(weights, tokenizer, prompts, prompt_files, data, out, batch, dtype, store) -> None:
    """Encode prompts, and the empty one, into a cache.

    Prompts that are already there are skipped, so a stopped command goes on where it was.
    """
    import time

    from mirage_jax.data.captions import NO_PROMPT, recorded_captions
    from mirage_jax.data.text_cache import TextSpec, add_texts, missing_prompts
    from mirage_jax.models.encode_text import encode_prompts, load_text_model
    from mirage_jax.rollout.prompts import read_prompts

    asked = [NO_PROMPT, *prompts, *(recorded_captions(data) if data else ())]
    for file in prompt_files:
        asked += read_prompts(file).prompts
    model = load_text_model(weights, tokenizer, dtype=dtype)
    spec = TextSpec(model.identity, model.tokenizer.length, model.config.width, store)
    wanted = missing_prompts(out, spec, asked)
    start, written = time.perf_counter(), 0
    for first in range(0, len(wanted), _GROUP):
        group = wanted[first : first + _GROUP]
        encoded = {
            prompt: rows.astype(spec.numpy_dtype)
            for prompt, rows in encode_prompts(model, group, batch=batch)
        }
        add_texts(out, spec, encoded)
        written += len(group)
        speed = written / (time.perf_counter() - start)
        click.echo(f"encoded {written} of {len(wanted)} prompts, {speed:.2f} prompts/s")
    click.echo(_summary(out, len(wanted)))


def _summary(out: Path, new: int) -> str:
    from mirage_jax.data.text_cache import open_texts

    cache = open_texts(out)
    files = sorted(out.glob("*.safetensors")) if out.is_dir() else [out]
    size = sum(file.stat().st_size for file in files)
    return (
        f"{out}: {len(cache)} prompts ({new} new), {size} bytes, {size // len(cache)} a prompt, "
        f"width {cache.spec.width}"
    )
