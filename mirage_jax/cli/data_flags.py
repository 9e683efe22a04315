"""What `--data` of several commands says about a config: which clips are read.

Imports nothing heavy. Read next: `mirage_jax/train/config.py`.
"""

from __future__ import annotations

from typing import Any

import click


def clips_of(data: Any, folder: str, config: str) -> dict[str, Any]:
    """Return what changes in a config so that the clips of a folder are read.

    Args:
        data: that part of the config.
        folder: of a recorded data set.
        config: the config's name, for the error.

    Raises:
        click.BadParameter: if the config makes its clips itself.
    """
    if data.source != "recorded":
        raise click.BadParameter(
            f"got {folder}, but the clips of {config} are {data.source} (data.source) and no "
            "folder is read, expected data.source 'recorded'; drop --data, or choose a "
            "config such as configs/doom.py:tiny",
            param_hint="--data",
        )
    return {"data.directory": folder, "data.mixture": ()}
