"""Released LoRA files to our tree and back.

Conventions: for a module of the denoiser they have `<module>.lora_A.weight` [rank, in] and
`<module>.lora_B.weight` [out, rank]. The release writes `pipe.dit.blocks.N.<module>`, PEFT adds
`base_model.model.` and `.default`, Diffusers has its own module names under `transformer.`, others
say `lora_down`, `lora_up`, `diffusion_model.`; all are read. The delta is B A with scale 1: where a
file states another, as `alpha` tensors or in PEFT's settings, it is multiplied into B.

Read next: `../lora.py` for what a LoRA is with us.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.models.convert.denoiser import denoiser_entries, is_stacked, their_pattern
from mirage_jax.models.convert.layout import (
    KERNEL,
    Entry,
    Layout,
    Shaped,
    check_entries,
    layout_of,
    read,
    to_ours,
    to_theirs,
)
from mirage_jax.models.convert.wrappers import strip_wrappers
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Params, Path, abstract_params, flatten

PREFIXES: Mapping[Layout, str] = {"release": "pipe.dit.", "diffusers": "transformer."}
LORA_MARKERS: Mapping[Layout, str] = {
    "release": r"(self_attn|cross_attn)\.[qkvo]\.lora_|\.ffn\.[02]\.lora_",
    "diffusers": r"attn[12]\.to_|\.ffn\.net\.",
}
_SPELLINGS = (
    (r"\.default\b", ""),
    (r"\.lora_down\b", ".lora_A"),
    (r"\.lora_up\b", ".lora_B"),
)

_UNKNOWN_SETTINGS = ("alpha_pattern", "rank_pattern", "use_dora", "lora_bias")


class _Scaled(NamedTuple):
    """A tensor that is multiplied by a scale when it is read."""

    tensor: Any
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype

    def read(self) -> np.ndarray:
        value = read(self.tensor)
        return (value.astype(np.float32) * self.scale).astype(value.dtype)


def lora_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Bring every published spelling to `<module>.lora_A.weight` and `<module>.lora_B.weight`.

    Raises:
      ValueError: if two tensors end up with the same name.
    """
    plain: dict[str, Any] = {}
    for name, tensor in strip_wrappers(tensors).items():
        for spelling, ours in _SPELLINGS:
            name = re.sub(spelling, ours, name)
        if name in plain:
            raise ValueError(
                f"LoRA: {name} appears twice, under different spellings; pass one adapter only"
            )
        plain[name] = tensor
    for name in [n for n in plain if n.endswith(".alpha")]:
        up = name.removesuffix("alpha") + "lora_B.weight"
        if up in plain:
            alpha = float(read(plain.pop(name)).reshape(-1)[0])
            plain[up] = _Scaled(plain[up], alpha / plain[up].shape[1])
    return plain


def stated_scale(settings: Mapping[str, Any]) -> float:
    """Return the scale of the delta that PEFT's settings state: alpha / rank, 1 if they do not.

    Args:
      settings: contents of an `adapter_config.json`, or what Diffusers keeps in a file's header;
        may be empty.

    Raises:
      ValueError: if the settings ask for more than one low-rank product with one scale.
    """
    settings = {name.removeprefix("transformer."): value for name, value in settings.items()}
    asked = {name: settings[name] for name in _UNKNOWN_SETTINGS if settings.get(name)}
    if asked:
        raise ValueError(
            f"LoRA settings: got {asked}, expected one alpha and one rank for all modules; merge "
            "the adapter where it was trained"
        )
    alpha, rank = settings.get("lora_alpha"), settings.get("r")
    if alpha is None or not rank:
        return 1.0
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def scaled(tensors: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Multiply a scale into the B of every module, when it is read."""
    if scale == 1.0:
        return dict(tensors)
    return {n: _Scaled(t, scale) if ".lora_B." in n else t for n, t in tensors.items()}


def lora_entries(
    tensors: Mapping[str, Any], config: DenoiserConfig
) -> tuple[list[Entry], dict[Path, Shaped]]:
    """Return an entry for each tensor that a LoRA like this one has, and the shapes of our tree.

    Args:
      tensors: from `lora_tensors`; any subset of the model's linear maps, but every block.
      config: the denoiser that it adapts.

    Raises:
      ValueError: if the layout is not known.
    """
    layout = layout_of(tensors, LORA_MARKERS, what="LoRA weights")
    leaves = flatten(abstract_params(config))
    modules: dict[Path, list[Entry]] = {}
    for entry in denoiser_entries(config, layout):
        if entry.form == KERNEL:
            modules.setdefault(entry.ours[:-1], []).append(entry)
    entries: list[Entry] = []
    shapes: dict[Path, Shaped] = {}
    for module, layers in modules.items():
        ranks = _ranks([e.theirs.removesuffix(".weight") for e in layers], tensors)
        if ranks:
            *lead, rows, columns = leaves[(*module, "kernel")].shape
            shapes[(*module, "a")] = Shaped((*lead, rows, ranks[0]))
            shapes[(*module, "b")] = Shaped((*lead, ranks[0], columns))
            entries += [half for entry in layers for half in _halves(entry)]
    return entries, shapes


def lora_from_release(tensors: Mapping[str, Any], config: DenoiserConfig) -> Params:
    """Convert a released LoRA in either layout and any spelling to our tree.

    Args:
      tensors: LoRA tensors by name; any subset of the model's linear maps, but every block.
      config: the denoiser that it adapts.

    Returns:
      A tree for `lora.apply_lora`, to be applied with scale 1 as released.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    tensors = lora_tensors(tensors)
    entries, shapes = lora_entries(tensors, config)
    check_entries(entries, shapes, tensors, what="released LoRA weights")
    return to_ours(entries, tensors)


def lora_export_entries(
    lora: Mapping[Path, Any], layout: Layout = "release", prefix: str | None = None
) -> list[Entry]:
    """Return an entry for each tensor of a LoRA of ours.

    Args:
      lora: path -> anything with `.shape`, as `flatten` returns it.
      layout: "release" or "diffusers".
      prefix: of the names there; None takes that of the layout, see `PREFIXES`.
    """
    prefix = PREFIXES[layout] if prefix is None else prefix
    entries = []
    for path, leaf in lora.items():
        suffix = {"a": "lora_A.weight", "b": "lora_B.weight"}[path[-1]]
        pattern = f"{prefix}{their_pattern(path[:-1], layout)}.{suffix}"
        for layer in range(leaf.shape[0]) if is_stacked(path) else [None]:
            entries.append(Entry(pattern.format(layer), path, layer, KERNEL))
    return entries


def lora_to_release(
    lora: Params, *, prefix: str | None = None, layout: Layout = "release"
) -> dict[str, np.ndarray]:
    """Convert a LoRA to names and layouts of others; inverse of `lora_from_release`."""
    flat = flatten(lora)
    return to_theirs(lora_export_entries(flat, layout, prefix), flat)


def _ranks(modules: list[str], tensors: Mapping[str, Any]) -> list[int]:
    """Return the ranks of the tensors that modules have; none where they are not adapted."""
    halves = (("lora_A", 0), ("lora_B", 1))
    names = ((f"{module}.{half}.weight", axis) for half, axis in halves for module in modules)
    return [tensors[name].shape[axis] for name, axis in names if name in tensors]


def _halves(entry: Entry) -> Iterator[Entry]:
    module = entry.theirs.removesuffix(".weight")
    for ours, theirs in (("a", "lora_A"), ("b", "lora_B")):
        path = (*entry.ours[:-1], ours)
        yield Entry(f"{module}.{theirs}.weight", path, entry.layer, KERNEL)
