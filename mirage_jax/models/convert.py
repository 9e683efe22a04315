"""Released weights to our parameter tree and back: backbone, memory branch and LoRA.

Conventions: released names are dotted (`blocks.3.self_attn.q.weight`), linear weights are
[out, in], patch embeddings are 3-D convolutions, one tensor a block. Ours are nested, kernels are
[in, out], blocks are stacked. Both directions only move values, so a round trip is exact to the
bit. Checkpoints may wrap names in any nesting of the prefixes in `_WRAPPERS`, or in dictionaries.

Read next: `denoiser.py` for the tree, `files.py` for our own files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import (
    Params,
    Path,
    abstract_params,
    check_against,
    flatten,
    unflatten,
)

_WRAPPERS = frozenset({"module", "model", "base_model", "generator", "pipe", "vace", "dit"})

# Our module names and the released ones, longest first where one begins another.
_MODULES = (
    ("branch/patch_embedding", "vace_patch_embedding"),
    ("branch/before_proj", "vace_blocks.0.before_proj"),
    ("branch/blocks/after_proj", "vace_blocks.{}.after_proj"),
    ("branch/blocks/block", "vace_blocks.{}"),
    ("blocks", "blocks.{}"),
    ("time_projection", "time_projection.1"),
    ("head/linear", "head.head"),
)
_PARTS = {"up": "0", "down": "2", "inner": "0", "outer": "2", "kernel": "weight", "scale": "weight"}


class _Shaped(NamedTuple):
    shape: tuple[int, ...]


def denoiser_from_release(
    tensors: Mapping[str, Any], config: DenoiserConfig, *, dtype: Any = jnp.float32
) -> Params:
    """Convert released weights of the backbone, and of the branch if the config has one.

    Args:
      tensors: released tensors by name, with or without wrapping prefixes, possibly in nested
        dicts; merge the files of backbone and branch with `{**backbone, **branch}`.
      config: sizes of the model; a config without `branch_layers` takes a backbone alone.
      dtype: of the result; None keeps the dtype of the file.

    Returns:
      Parameters for `functional.apply(config, ...)`.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    tensors = strip_wrappers(tensors)
    leaves = flatten(abstract_params(config))
    wanted: dict[tuple[str, ...], Any] = {
        (name,): _Shaped(_release_shape(path, leaf.shape, config))
        for path, leaf in leaves.items()
        for name in _release_names(path, leaf.shape)
    }
    got: dict[tuple[str, ...], Any] = {(name,): value for name, value in tensors.items()}
    check_against(wanted, got, what="released denoiser weights")
    flat = {}
    for path, leaf in leaves.items():
        parts = [_to_ours(path, tensors[n]) for n in _release_names(path, leaf.shape)]
        value = np.stack(parts) if _is_stacked(path) else parts[0]
        flat[path] = jnp.asarray(value, dtype or value.dtype)
    return unflatten(flat)


def denoiser_to_release(
    params: Params, config: DenoiserConfig, *, dtype: Any = None
) -> dict[str, np.ndarray]:
    """Convert parameters to released names and layouts; inverse of `denoiser_from_release`.

    Args:
      params: parameters of the denoiser.
      config: its config.
      dtype: of the result; None keeps that of `params`.

    Returns:
      Tensors by released name without prefix; those of the branch begin with `vace_`.
    """
    flat = flatten(params)
    check_against(flatten(abstract_params(config)), flat, what="denoiser parameters")
    tensors = {}
    for path, leaf in flat.items():
        value = np.asarray(leaf if dtype is None else leaf.astype(dtype))
        layers = value if _is_stacked(path) else value[None]
        for name, layer in zip(_release_names(path, value.shape), layers, strict=True):
            tensors[name] = _to_release(path, layer, config)
    return tensors


def lora_from_release(tensors: Mapping[str, Any], config: DenoiserConfig) -> Params:
    """Convert a released LoRA, `blocks.N.<module>.lora_{A,B}[.default].weight`, to our tree.

    Args:
      tensors: LoRA tensors by name; any subset of the backbone's projections, but every block.
      config: the denoiser that it adapts.

    Returns:
      A tree for `lora.apply_lora`, to be applied with scale 1 as released.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    tensors = {re.sub(r"\.default\b", "", n): v for n, v in strip_wrappers(tensors).items()}
    flat: dict[Path, Any] = {}
    wanted: dict[Path, _Shaped] = {}
    for path, leaf in flatten(abstract_params(config)).items():
        names = [name.removesuffix(".weight") for name in _release_names(path, leaf.shape)]
        down = [f"{name}.lora_A.weight" for name in names]
        up = [f"{name}.lora_B.weight" for name in names]
        if path[0] != "blocks" or path[-1] != "kernel" or tensors.keys().isdisjoint(down + up):
            continue
        _, rows, columns = leaf.shape
        rank = next(
            tensors[n].shape[axis] for s, axis in ((down, 0), (up, 1)) for n in s if n in tensors
        )
        wanted |= {(name,): _Shaped((rank, rows)) for name in down}
        wanted |= {(name,): _Shaped((columns, rank)) for name in up}
        flat[(*path[:-1], "a")] = down
        flat[(*path[:-1], "b")] = up
    check_against(wanted, {(n,): v for n, v in tensors.items()}, what="released LoRA weights")
    return unflatten(
        {
            path: jnp.asarray(np.stack([np.asarray(tensors[name]).T for name in names]))
            for path, names in flat.items()
        }
    )


def lora_to_release(lora: Params, *, prefix: str = "pipe.dit.") -> dict[str, np.ndarray]:
    """Convert a LoRA to released names and layouts; inverse of `lora_from_release`."""
    tensors = {}
    for path, leaf in flatten(lora).items():
        suffix = {"a": "lora_A.weight", "b": "lora_B.weight"}[path[-1]]
        for name, layer in zip(
            _release_names(path[:-1], leaf.shape), np.asarray(leaf), strict=True
        ):
            tensors[f"{prefix}{name}.{suffix}"] = np.ascontiguousarray(layer.T)
    return tensors


def strip_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested dicts and drop every leading wrapper such as `module.` or `pipe.vace.`.

    Raises:
      ValueError: if two tensors end up with the same name.
    """
    stripped: dict[str, Any] = {}
    for name, value in _flat_names(tensors):
        parts = name.split(".")
        while len(parts) > 1 and parts[0] in _WRAPPERS:
            parts.pop(0)
        short = ".".join(parts)
        if short in stripped:
            raise ValueError(
                f"released weights: {short} appears twice, under different prefixes (the second "
                f"is {name}); pass one model's tensors only"
            )
        stripped[short] = value
    return stripped


def _flat_names(tensors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            yield from _flat_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_stacked(path: Path) -> bool:
    return "blocks" in path[:2]


def _release_names(path: Path, shape: tuple[int, ...]) -> list[str]:
    """Return the released name of each layer of a parameter (one name if it is not stacked)."""
    ours = "/".join(path)
    start, released = next(
        ((o, r) for o, r in _MODULES if ours == o or ours.startswith(f"{o}/")), ("", "")
    )
    rest = [_PARTS.get(part, part) for part in ours.removeprefix(start).split("/") if part]
    pattern = ".".join([part for part in (released, *rest) if part])
    return [pattern.format(layer) for layer in range(shape[0])] if _is_stacked(path) else [pattern]


def _release_shape(path: Path, shape: tuple[int, ...], config: DenoiserConfig) -> tuple[int, ...]:
    shape = shape[1:] if _is_stacked(path) else shape
    return _to_release(path, np.broadcast_to(np.float32(0), shape), config, copy=False).shape


def _to_ours(path: Path, value: Any) -> np.ndarray:
    value = np.asarray(value)
    if path[-1] == "modulation":
        return value[0]
    if path[-2:] == ("patch_embedding", "kernel"):
        return value.transpose(2, 3, 4, 1, 0).reshape(-1, value.shape[0])
    return value.T if path[-1] == "kernel" else value


def _to_release(
    path: Path, value: np.ndarray, config: DenoiserConfig, *, copy: bool = True
) -> np.ndarray:
    if path[-1] == "modulation":
        value = value[None]
    elif path[-2:] == ("patch_embedding", "kernel"):
        value = value.reshape(*config.patch, -1, value.shape[-1]).transpose(4, 3, 0, 1, 2)
    elif path[-1] == "kernel":
        value = value.T
    return np.ascontiguousarray(value) if copy else value
