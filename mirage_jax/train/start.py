"""The parameters that a stage of training starts from: given weights, or freshly drawn ones.

Conventions: files are looked for in the working folder first, then in the folder of `--weights`,
so that a stage goes on from what the stage before it left. Weights that lack a memory branch get
one, whose hints are zero: the backbone is unchanged at step 0. Read next:
`mirage_jax/train/tuning.py` (which of them are trained).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from mirage_jax.models import files, functional
from mirage_jax.models.branch_start import new_branch, without_branch
from mirage_jax.models.functional import Params
from mirage_jax.models.tensor_file import stored_tensors
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.stage_config import DenoiserStageConfig


def find_file(folders: Sequence[Path], name: str) -> Path:
    """Return the first file of that name.

    Raises:
        FileNotFoundError: if no folder has it.
    """
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name}: found in none of {', '.join(map(str, folders))}, expected it in one of them; "
        "run the stage before this one with the same --workdir (for the codec mirage train --stage "
        "codec), or give a folder of weights with --weights"
    )


def drawn_params(world: WorldConfig) -> Params:
    """Draw all parameters of the denoiser and, where there is one, the learned read."""
    key = key_for(world.seed, 0, Purpose.INIT_DENOISER)
    params = {"denoiser": functional.init(world.denoiser, key)}
    if world.learned_read is not None:
        key = key_for(world.seed, 0, Purpose.INIT_LEARNED_READ)
        params["learned_read"] = functional.init(world.learned_read, key)
    return params


def given_read(world: WorldConfig, folders: Sequence[Path]) -> Callable[[], Params] | None:
    """Return what reads the learned read of the first folder that has one; None if none has."""
    paths = [folder / "learned_read.safetensors" for folder in folders]
    found = next((path for path in paths if path.is_file()), None)
    if found is None or world.learned_read is None:
        return None
    return functools.partial(files.load_params, found, world.learned_read)


def given_params(world: WorldConfig, stage: DenoiserStageConfig, folders: Sequence[Path]) -> Params:
    """Read the denoiser and, where there is one, the learned read, in the types of their files.

    Raises:
        FileNotFoundError: if a file is in none of the folders.
        ValueError: if it does not fit the config.
    """
    path = find_file(folders, "denoiser.safetensors")
    has_branch = any(name.startswith("branch/") for name in stored_tensors(path))
    if has_branch or not world.denoiser.branch_layers:
        denoiser = files.load_params(path, world.denoiser, dtype="stored")
    else:
        backbone = without_branch(world.denoiser)
        denoiser = files.load_params(path, backbone, dtype="stored")
        key = key_for(world.seed, 0, Purpose.INIT_DENOISER)
        denoiser["branch"] = new_branch(world.denoiser, denoiser, stage.branch_start, key)
    params = {"denoiser": denoiser}
    if world.learned_read is not None:
        path = find_file(folders, "learned_read.safetensors")
        params["learned_read"] = files.load_params(path, world.learned_read)
    return params
