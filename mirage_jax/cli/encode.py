"""`mirage encode`: prepares what training and generation read instead of running large encoders.

`text` puts the embeddings of prompts into a cache, see `mirage_jax/data/text_cache.py`; the work is
in `mirage_jax/models/encode_text.py`. `latents` puts those of a data set's clips into a folder, see
`mirage_jax/train/latent_files.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from mirage_jax.cli.data_flags import clips_of
from mirage_jax.cli.several import joined, processes_option
from mirage_jax.distributed import exit_codes

# Prompts of one file of a cache: what a stopped command loses at most.
_GROUP = 256


@click.group(help="Encode prompts or clips once, for training and generation to read.")
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


@command.command()
@click.option("--config", required=True, help="Config file and variant, e.g. configs/doom.py:tiny.")
@click.option(
    "--weights",
    "--workdir",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with codec.safetensors: of given weights, or of mirage train --stage codec.",
)
@click.option(
    "--data", type=click.Path(file_okay=False), help="Dataset folder; default: the config's."
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(("train", "val")),
    default=("train", "val"),
    show_default=True,
    help="What to encode; repeatable.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    help="Folder for the latents, shared by all processes; default: the config's data.latents.",
)
@processes_option
def latents(config, weights, data, splits, out, processes) -> None:
    """Encode the clips of a data set, for mirage train --latents OUT.

    Started as several processes, as mirage train is, each encodes its share, on all its devices. A
    file appears when it is whole and those that are there are skipped, so the same command, with
    any number of processes, goes on where it was stopped; after SIGTERM the exit code is 75, on
    which schedulers are to give it. Training refuses latents of other codec weights or of another
    data set.
    """
    import signal

    from mirage_jax.train import config as config_lib

    world = config_lib.load(config)
    if data:
        world = config_lib.replace(world, clips_of(world.data, data, config))
    out = out or world.data.latents
    if not out:
        raise click.UsageError(f"--out: got nothing, and {config} names no data.latents; give one")
    with joined(processes) as report:
        # Of several processes JAX would take it, and do nothing.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(exit_codes.PREEMPTED))
        from mirage_jax.train import stages
        from mirage_jax.train.given_latents import split_encoding
        from mirage_jax.train.latent_files import encode_missing
        from mirage_jax.train.latents import load_codec

        codec = load_codec([weights], world.codec)
        for split in splits:
            clips, folder = stages.open_split(world.data, split), Path(out) / split
            encode_missing(split_encoding(world, codec, split), clips, folder, report)
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            report(f"{folder}: {len(clips)} clips, {size} bytes, {size // len(clips)} a clip")
