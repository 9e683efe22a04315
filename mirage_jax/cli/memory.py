"""`mirage memory`: looks into a saved memory.

The work is in `mirage_jax/memory/files.py`.
"""

from __future__ import annotations

import click


@click.group(help="Look into a saved memory: its size, or a point cloud of it.")
def command() -> None:
    """Looks into a memory file."""


@command.command(help="Print rows, bytes and config of FILE.")
@click.argument("file", type=click.Path())
def info(file) -> None:
    """Prints what a memory holds."""
    import dataclasses

    from mirage_jax.memory import files

    memory, config = files.load(file)
    size = files.nbytes(memory)
    click.echo(f"rows={int(memory.count)} dropped={int(memory.dropped)} bytes={size.used}")
    for name, value in dataclasses.asdict(config).items():
        click.echo(f"{name}={value}")


@command.command(help="Write the rows of FILE to PLY as a coloured point cloud.")
@click.argument("file", type=click.Path())
@click.argument("ply", type=click.Path())
def export(file, ply) -> None:
    """Exports a point cloud."""
    from mirage_jax.memory import files

    memory, _ = files.load(file)
    files.export_ply(ply, memory)
    click.echo(f"{int(memory.count)} points written to {ply}")
