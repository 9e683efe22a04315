"""`mirage convert`: released weights into a world's folder, and back out.

The work is in `mirage_jax/models/convert/`, `mirage_jax/rollout/released.py` and
`released_export.py`; `--verify` is `mirage_jax/eval/against_diffusers.py`.
"""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command(
    help="""Convert released weights into a world's folder, or a world's weights back.

    \b
    mirage convert --backbone Wan2.2-TI2V-5B --branch branch.safetensors \\
        --vae Wan2.2_VAE.pth --text models_t5_umt5-xxl-enc-bf16.pth --out worlds/wan5b
    mirage convert --from worlds/wan5b --to diffusers --out wan5b-diffusers

    Weights are safetensors or .pth, one file, shards with an index, or a folder of either, in the
    layout of the release or of Diffusers. Memory in use stays at the size of one tensor.
    """
)
@click.option("--backbone", type=_PATH, help="Denoiser; may hold the memory branch too.")
@click.option("--branch", type=_PATH, help="Memory branch (VACE), where it is apart.")
@click.option("--lora", type=_PATH, help="LoRA of the denoiser.")
@click.option("--vae", type=_PATH, help="Autoencoder of Wan2.1 or Wan2.2.")
@click.option("--text", type=_PATH, help="UMT5 text encoder.")
@click.option("--tokenizer", type=_PATH, help="Tokenizer; default: beside the text encoder.")
@click.option("--config", help="Config file and variant, e.g. configs/wan5b.py:release.")
@click.option("--from", "source", type=_PATH, help="World to export; goes with --to.")
@click.option("--to", "layout", type=click.Choice(("release", "diffusers")), help="Its new layout.")
@click.option("--out", required=True, type=_PATH, help="Folder to write.")
@click.option("--heads", type=int, help="Attention heads, where neither weights nor config tell.")
@click.option("--branch-layers", help="Blocks with hints, e.g. 0,2,4; default: spaced evenly.")
@click.option("--size", help="Height x width of a frame, e.g. 704x1280, without --config.")
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="Storage type of floating weights; default: as they are.",
)
@click.option("--shard-gb", type=float, default=5.0, show_default=True, help="Largest export file.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("--verify", is_flag=True, help="Compare with Diffusers (needs torch) afterwards.")
def command(out, source, layout, config, size, dtype, shard_gb, overwrite, verify, **given) -> None:
    """Converts in the direction that the flags ask for."""
    given["branch_layers"] = _numbers("--branch-layers", given["branch_layers"], ",")
    if bool(source) != bool(layout):
        raise click.UsageError("--from and --to go together.")
    if source:
        stray = [f"--{name}" for name, value in given.items() if value is not None]
        if stray:
            raise click.UsageError(f"{', '.join(stray)}: not with --from.")
        _export(source, layout, out, dtype, shard_gb, overwrite)
        world = source
    else:
        _import(given, config, out, dtype, _numbers("--size", size, "x"), overwrite)
        world = out
    if verify:
        _verify(world)


def _import(given, config, out, dtype, frame_hw, overwrite) -> None:
    from mirage_jax.rollout.released import Released, plan_import, write_import
    from mirage_jax.rollout.world import world_spec
    from mirage_jax.train import config as config_lib

    if not any(given[name] for name in ("backbone", "branch", "lora", "vae", "text")):
        raise click.UsageError("give --backbone, --lora, --vae or --text, or --from with --to.")
    spec = world_spec(config_lib.load(config)) if config else None
    checked = plan_import(Released(**given, spec=spec), out, frame_hw)
    _refuse_existing(checked.files(out), overwrite)
    for note in (note for plan in checked.plans for note in plan.notes):
        click.echo(f"note: {note}")
    with _progress(checked.nbytes) as bar:
        written = write_import(checked, out, dtype=dtype, progress=bar.update)
    _report(written)


def _export(source, layout, out, dtype, shard_gb, overwrite) -> None:
    from mirage_jax.models.convert.exports import ExportOptions, export_bytes
    from mirage_jax.rollout.released_export import export_folder, exportable_models

    models, notes = exportable_models(source)
    for note in notes:
        click.echo(f"note: {note}")
    _refuse_existing(list(out.rglob("*.safetensors")) if out.is_dir() else [], overwrite)
    options = ExportOptions(layout, int(shard_gb * 1e9), dtype)
    with _progress(sum(export_bytes(model.file) for model in models)) as bar:
        written = export_folder(models, out, options, bar.update)
    _report(written)


def _verify(world: Path) -> None:
    from mirage_jax.eval.against_diffusers import compare_folder

    for result in compare_folder(world):
        click.echo(f"verify {result.name}: worst relative error {result.error:.2e}")


def _report(written: list[Path]) -> None:
    for file in written:
        click.echo(f"{file} {file.stat().st_size} bytes")


def _refuse_existing(files: list[Path], overwrite: bool) -> None:
    there = [str(file) for file in files if file.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"--out: {', '.join(there)} would be replaced; give another folder, or --overwrite"
        )


def _progress(total: int):
    from tqdm import tqdm

    return tqdm(total=total, unit="B", unit_scale=True, disable=None)


def _numbers(flag: str, text: str | None, separator: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(separator))
    except ValueError as error:
        raise click.UsageError(
            f"{flag}: got {text!r}, expected numbers with '{separator}'."
        ) from error
    if separator == "x" and len(numbers) != 2:
        raise click.UsageError(f"{flag}: got {text!r}, expected height x width, e.g. 704x1280.")
    return numbers
