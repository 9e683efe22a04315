"""Parameters as safetensors files: flat names joined by "/", written atomically, checked by name.

Conventions: a file holds exactly the parameters of one model config; string metadata travels in
the header. Names and shapes are compared with the config before any tensor is read. Nothing is
ever unpickled.

Read next: `tensor_file.py` for the format, `convert/` for other people's files.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models.functional import (
    ModelConfig,
    Params,
    abstract_params,
    check_against,
    flatten,
    unflatten,
)
from mirage_jax.models.tensor_file import TensorWriter, stored_metadata, stored_tensors


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
    flat = {"/".join(names): leaf for names, leaf in flatten(params).items()}
    layout = {
        name: jax.ShapeDtypeStruct(leaf.shape, _storage_dtype(leaf.dtype, dtype))
        for name, leaf in flat.items()
    }
    header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    with TensorWriter(path, layout, header) as file:
        for name, leaf in flat.items():
            file.write(name, np.asarray(leaf).astype(layout[name].dtype, copy=False))


def load_params(
    path: str | os.PathLike, config: ModelConfig, *, dtype: Literal["model", "stored"] = "model"
) -> Params:
    """Read the parameters of `config` from a safetensors file.

    Args:
      path: file written by `save_params` or `mirage convert`.
      config: the model config.
      dtype: "model" casts to the dtypes that the config declares (float32), "stored" keeps those
        of the file, e.g. bfloat16 for a large model that only generates.

    Returns:
      Nested dict of arrays with the structure of `abstract_params(config)`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file, or names or shapes differ from the config's.
    """
    expected = flatten(abstract_params(config))
    stored = {tuple(name.split("/")): tensor for name, tensor in stored_tensors(path).items()}
    check_against(expected, stored, what=f"parameters in {path}")
    return unflatten(
        {
            names: jnp.asarray(stored[names].read()).astype(
                stored[names].dtype if dtype == "stored" else leaf.dtype
            )
            for names, leaf in expected.items()
        }
    )


def load_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return the header metadata of a safetensors file without reading its tensors."""
    return stored_metadata(path)


def load_tree(path: str | os.PathLike) -> Params:
    """Read whatever nested dict a file holds, e.g. a LoRA, in the dtypes of the file.

    Args:
      path: file written by `save_params` or `mirage convert`.

    Returns:
      Nested dict of arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file.
    """
    tensors = stored_tensors(path)
    return unflatten({tuple(k.split("/")): jnp.asarray(t.read()) for k, t in tensors.items()})


def _storage_dtype(dtype: Any, wanted: str | None) -> Any:
    return wanted if wanted is not None and jnp.issubdtype(dtype, jnp.floating) else dtype
