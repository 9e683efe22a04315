"""`mirage plan`: says how large a config is before anything of it is allocated.

Prints tokens, parameters and bytes of a rollout and of each stage that trains the denoiser; the
work is in `mirage_jax/estimate.py`.
"""

from __future__ import annotations

import click


@click.command()
@click.option("--config", required=True, help="Config file and variant, e.g. configs/wan5b.py.")
@click.option("--batch", type=click.IntRange(min=1), help="Clips at once; default: the config's.")
def command(config, batch) -> None:
    """Says how large the models and runs of a config are, on one device."""
    from mirage_jax import estimate
    from mirage_jax.train import config as config_lib
    from mirage_jax.train import stages

    names = ("denoiser", "branch", "lora", "full")
    world = config_lib.load(config)
    if batch:
        world = config_lib.replace(world, {f"{name}_train.batch": batch for name in names})
    device = estimate.device_bytes()
    click.echo(f"{world.name}: generate\n{estimate.estimate_generation(world).text(device)}")
    for name in names:
        if (size := stages.estimate_stage(world, name)) is not None:
            click.echo(f"\n{world.name}: train --stage {name}\n{size.text(device)}")
