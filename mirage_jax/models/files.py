"""Parameters as safetensors files: flat names joined by "/", written atomically, checked by name.

Conventions: a file holds exactly the parameters of one model config; string metadata travels in
the header. Names and shapes are compared with the config before any tensor is read. Nothing is
ever unpickled.

Read next: `functional.py` for the parameter trees, `convert.py` for other people's files.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.flax import save as _serialize

from mirage_jax.models.functional import (
    ModelConfig,
    Params,
    abstract_params,
    check_against,
    flatten,
    unflatten,
)


def save_params(
    path: str | os.PathLike,
    params: Params,
    metadata: Mapping[str, Any] | None = None,
    *,
    dtype: str | None = None,
) -> None:
    """Write parameters to a safetensors file; a reader sees the old file or the whole new one.

    Args:
      path: file to write; its folder is made if needed.
      params: nested dict of arrays; names may not contain "/".
      metadata: header entries; values that are not strings are stored as JSON.
      dtype: storage dtype of floating parameters, e.g. "float16"; None keeps them.
    """
    flat = {"/".join(names): _stored(leaf, dtype) for names, leaf in flatten(params).items()}
    header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    _write_atomically(Path(path), _with_sorted_metadata(_serialize(flat, metadata=header)))


def _with_sorted_metadata(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order: equal content is equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_params(path: str | os.PathLike, config: ModelConfig) -> Params:
    """Read the parameters of `config` from a safetensors file.

    Args:
      path: file written by `save_params`.
      config: the model config; floating parameters are cast to its dtypes.

    Returns:
      Nested dict of arrays with the structure of `abstract_params(config)`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file, or names or shapes differ from the config's.
    """
    expected = flatten(abstract_params(config))
    with _opened(path) as file:
        shapes = {
            tuple(k.split("/")): _Shape(tuple(file.get_slice(k).get_shape())) for k in file.keys()
        }
        check_against(expected, shapes, what=f"parameters in {path}")
        return unflatten(
            {
                names: jnp.asarray(file.get_tensor("/".join(names))).astype(leaf.dtype)
                for names, leaf in expected.items()
            }
        )


def load_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return the header metadata of a safetensors file without reading its tensors."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


class _Shape(NamedTuple):
    shape: tuple[int, ...]


def _opened(path: str | os.PathLike) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"weights not found - got {path} - expected a .safetensors file - "
            "check the path, or train or convert the weights first"
        )
    try:
        return safe_open(os.fspath(path), framework="flax")
    except SafetensorError as error:
        raise ValueError(
            f"cannot read {path} ({error}) - expected a whole safetensors file - "
            "it may be truncated or a Git LFS pointer: fetch it again"
        ) from error


def _stored(leaf: Any, dtype: str | None) -> jax.Array:
    leaf = jnp.asarray(np.asarray(leaf))
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(dtype) if dtype is not None and floating else leaf


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
