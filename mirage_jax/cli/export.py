"""`mirage export`: gathers what training left in a working folder into a world's folder.

The result is what `mirage generate --weights` takes; the work is in `mirage_jax/rollout/world.py`.
"""

from __future__ import annotations

import click


@click.command(help="Gather the trained weights of a working folder into a world's folder.")
@click.option("--config", required=True, help="Config file and variant they were trained with.")
@click.option("--workdir", required=True, help="Working folder of mirage train.")
@click.option("--weights", help="Folder of given weights, for what the workdir does not hold.")
@click.option("--out", required=True, help="Folder to write.")
@click.option("--only", help="Models to gather, as in codec,learned_read; default: all.")
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float16",
    show_default=True,
    help="Storage type of the weights.",
)
def command(config, workdir, weights, out, only, dtype) -> None:
    """Writes a world's folder."""
    from mirage_jax.models.functional import count_params
    from mirage_jax.rollout.world import export_world, world_spec
    from mirage_jax.train import config as config_lib

    spec = world_spec(config_lib.load(config))
    names = only.split(",") if only else None
    world = export_world(workdir, spec, out, dtype=dtype, weights=weights, only=names)
    for name, params in world.params.items():
        click.echo(f"{name} parameters={count_params(params)}")
    click.echo(f"written to {out}")
