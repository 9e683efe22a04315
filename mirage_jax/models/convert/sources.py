"""Opens weights of any kind by their headers alone: one file, shards with an index, or a folder.

Conventions: a source is safetensors or PyTorch (`.pth`, `.pt`, `.bin`). Shards are named by an
index file (`*.index.json`), which must agree with them. In a folder the index counts, else all its
weight files of one kind together. A `config.json` beside the weights is read for the sizes, and
what PEFT says of a LoRA, in `adapter_config.json` or the file's header, for its scale.

Read next: `stream.py` for who reads the tensors.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirage_jax.models.convert.torch_file import torch_tensors
from mirage_jax.models.tensor_file import StoredTensor, stored_metadata, stored_tensors

_INDEX = ".index.json"
_TORCH = (".pth", ".pt", ".bin")
_ADAPTER = "lora_adapter_metadata"  # where Diffusers keeps PEFT's settings in a header
_KINDS = ((".safetensors",), _TORCH)


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights that were opened but not read.

    Attributes:
      path: what the user named.
      tensors: name -> tensor in a file.
      others: names of values in the files that are no tensors, e.g. a step counter.
      config: contents of the `config.json` beside the weights; empty where there is none.
      adapter: PEFT's settings of a LoRA; empty where there are none.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    others: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapter: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_source(path: str | Path) -> Source:
    """Open a file, an index file or a folder.

    Args:
      path: the file or folder.

    Returns:
      All its tensors; those of one file are in the order in which they lie in it.

    Raises:
      FileNotFoundError: if there is no such file, no weights in the folder, or a shard is missing.
      ValueError: if a file is broken, two files hold the same name, or index and shards disagree.
    """
    path = Path(path)
    files, listed = _files(path)
    tensors: dict[str, StoredTensor] = {}
    others: list[str] = []
    for file in files:
        found, rest = torch_tensors(file) if file.suffix in _TORCH else (stored_tensors(file), [])
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            raise ValueError(
                f"{path}: got {twice[0]} in {file.name} and in another file, expected every tensor "
                "once; name one file, or the index file of the shards"
            )
        tensors |= found
        others += rest
    if listed is not None:
        _check_index(path, listed, tensors)
    adapter = _json_beside(path, "adapter_config.json")
    for file in (file for file in files if file.suffix not in _TORCH):
        adapter |= json.loads(stored_metadata(file).get(_ADAPTER, "{}"))
    return Source(path, tensors, tuple(others), _json_beside(path, "config.json"), adapter)


def _files(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Return the weight files, and what the index says if there is one."""
    if path.is_dir():
        indices = sorted(path.glob(f"*{_INDEX}"))
        if len(indices) > 1:
            names = ", ".join(index.name for index in indices)
            raise ValueError(f"{path}: got several indices ({names}), expected one; name one file")
        if not indices:
            return _weights_in(path), None
        path = indices[0]
    if not path.is_file():
        raise FileNotFoundError(
            f"weights not found - got {path} - expected a file or folder with weights - check the "
            "path"
        )
    if not path.name.endswith(_INDEX):
        known = any(path.suffix in kind for kind in _KINDS)
        if not known:
            raise ValueError(
                f"{path}: expected .safetensors, {', '.join(_TORCH)}, *{_INDEX} or a folder"
            )
        return [path], None
    listed = _weight_map(path)
    files = list(dict.fromkeys(listed.values()))
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: the shards {', '.join(missing)} are not there; fetch all of them"
        )
    return [path.parent / name for name in files], listed


def _weights_in(folder: Path) -> list[Path]:
    for kind in _KINDS:
        found = sorted(file for file in folder.iterdir() if file.suffix in kind)
        if found:
            return found
    raise FileNotFoundError(
        f"weights not found - got the folder {folder} - expected .safetensors or "
        f"{', '.join(_TORCH)} files in it - name the folder that holds them"
    )


def _weight_map(index: Path) -> dict[str, str]:
    try:
        listed = json.loads(index.read_text())["weight_map"]
        plain = all(Path(name).name == name for name in listed.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index}: expected a JSON object with a weight_map of names to files ({error}); "
            "fetch it again"
        ) from error
    if not plain:
        raise ValueError(f"{index}: expected names of files in its own folder, without directories")
    return listed


def _check_index(path: Path, listed: Mapping[str, str], tensors: Mapping[str, Any]) -> None:
    lost = sorted(listed.keys() - tensors.keys())
    unlisted = sorted(tensors.keys() - listed.keys())
    if lost or unlisted:
        raise ValueError(
            f"{path}: index and shards disagree: not in the shards: {lost[:8]}; not in the index: "
            f"{unlisted[:8]}; fetch the whole set again"
        )


def _json_beside(path: Path, name: str) -> dict[str, Any]:
    file = (path if path.is_dir() else path.parent) / name
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: got broken JSON ({error}); fetch it again") from error
    return config if isinstance(config, dict) else {}
