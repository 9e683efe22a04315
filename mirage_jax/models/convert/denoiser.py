"""Released weights of backbone and memory branch to our tree and back.

Conventions: two layouts, that of the release (`blocks.3.self_attn.q.weight`) and that of Diffusers
(`blocks.3.attn1.to_q.weight`; with the branch the model is `WanVACETransformer3DModel`). Linear
weights are [out, in] there, patch embeddings 3-D convolutions, and every block has tensors of its
own; ours are stacked. Backbone and branch may come in different layouts, as their files do.

Read next: `layout.py` for how values are moved, `lora.py` for the same names with a LoRA.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mirage_jax.models.convert.layout import (
    KERNEL,
    PLAIN,
    Entry,
    Form,
    Layout,
    check_entries,
    layout_of,
    to_ours,
    to_theirs,
)
from mirage_jax.models.convert.wrappers import strip_wrappers
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Params, Path, abstract_params, check_against, flatten


class _Naming(NamedTuple):
    """Our module paths and their names, longest first where one begins another; then the parts."""

    modules: tuple[tuple[str, str], ...]
    parts: Mapping[str, str]


_NAMING: Mapping[Layout, _Naming] = {
    "release": _Naming(
        (
            ("branch/patch_embedding", "vace_patch_embedding"),
            ("branch/before_proj", "vace_blocks.0.before_proj"),
            ("branch/blocks/after_proj", "vace_blocks.{}.after_proj"),
            ("branch/blocks/block", "vace_blocks.{}"),
            ("blocks", "blocks.{}"),
            ("time_projection", "time_projection.1"),
            ("head/linear", "head.head"),
        ),
        {"up": "0", "down": "2", "inner": "0", "outer": "2", "kernel": "weight", "scale": "weight"},
    ),
    "diffusers": _Naming(
        (
            ("branch/patch_embedding", "vace_patch_embedding"),
            ("branch/before_proj", "vace_blocks.0.proj_in"),
            ("branch/blocks/after_proj", "vace_blocks.{}.proj_out"),
            ("branch/blocks/block", "vace_blocks.{}"),
            ("blocks", "blocks.{}"),
            ("time_embedding", "condition_embedder.time_embedder"),
            ("time_projection", "condition_embedder.time_proj"),
            ("text_embedding", "condition_embedder.text_embedder"),
            ("head/linear", "proj_out"),
            ("head", ""),
        ),
        {
            "self_attn": "attn1",
            "cross_attn": "attn2",
            "q": "to_q",
            "k": "to_k",
            "v": "to_v",
            "o": "to_out.0",
            "norm3": "norm2",
            "up": "net.0.proj",
            "down": "net.2",
            "inner": "linear_1",
            "outer": "linear_2",
            "kernel": "weight",
            "scale": "weight",
            "modulation": "scale_shift_table",
        },
    ),
}
BACKBONE_MARKERS: Mapping[Layout, str] = {
    "release": r"^(blocks\.\d+\.self_attn\.|time_projection\.)",
    "diffusers": r"^(blocks\.\d+\.attn1\.|condition_embedder\.)",
}
BRANCH_MARKERS: Mapping[Layout, str] = {
    "release": r"^vace_blocks\.\d+\.self_attn\.",
    "diffusers": r"^vace_blocks\.\d+\.attn1\.",
}


def denoiser_entries(config: DenoiserConfig, layout: Layout) -> list[Entry]:
    """Return an entry for every tensor of backbone and, if the config has one, branch."""
    leaves = flatten(abstract_params(config))
    return [e for p, leaf in leaves.items() for e in _entries(p, leaf.shape, config, layout)]


def denoiser_entries_for(names: Mapping[str, Any], config: DenoiserConfig) -> list[Entry]:
    """Return entries in the layouts of the tensors at hand, told apart for backbone and branch.

    Args:
      names: tensors by name, without wrappers.
      config: sizes of the model.

    Raises:
      ValueError: if the layout of either is not known.
    """
    branch = [name for name in names if name.startswith("vace_")]
    backbone = layout_of(names, BACKBONE_MARKERS, what="denoiser weights")
    entries = denoiser_entries(config, backbone)
    if not config.branch_layers:
        return entries
    layout = layout_of(branch, BRANCH_MARKERS, what="memory branch weights") if branch else backbone
    other = denoiser_entries(config, layout)
    return [b if a.ours[0] == "branch" else a for a, b in zip(entries, other, strict=True)]


def denoiser_from_release(
    tensors: Mapping[str, Any], config: DenoiserConfig, *, dtype: Any = jnp.float32
) -> Params:
    """Convert released weights of the backbone, and of the branch if the config has one.

    Args:
      tensors: tensors by name in either layout, with or without wrapping prefixes, possibly in
        nested dicts; merge the files of backbone and branch with `{**backbone, **branch}`.
      config: sizes of the model; a config without `branch_layers` takes a backbone alone.
      dtype: of the result; None keeps the dtype of the file.

    Returns:
      Parameters for `functional.apply(config, ...)`.

    Raises:
      ValueError: naming tensors that are missing, unexpected or of the wrong shape.
    """
    tensors = strip_wrappers(tensors)
    entries = denoiser_entries_for(tensors, config)
    check_entries(
        entries, flatten(abstract_params(config)), tensors, what="released denoiser weights"
    )
    return to_ours(entries, tensors, dtype=dtype)


def denoiser_to_release(
    params: Params, config: DenoiserConfig, *, dtype: Any = None, layout: Layout = "release"
) -> dict[str, np.ndarray]:
    """Convert parameters to released names and layouts; inverse of `denoiser_from_release`.

    Args:
      params: parameters of the denoiser.
      config: its config.
      dtype: of the result; None keeps that of `params`.
      layout: "release" or "diffusers".

    Returns:
      Tensors by name without prefix; those of the branch begin with `vace_`.
    """
    flat = flatten(params)
    check_against(flatten(abstract_params(config)), flat, what="denoiser parameters")
    return to_theirs(denoiser_entries(config, layout), flat, dtype=dtype)


def their_pattern(path: Path, layout: Layout) -> str:
    """Return the name of a parameter in a layout; `{}` stands for the layer of a stacked one."""
    naming, ours = _NAMING[layout], "/".join(path)
    start, module = next(
        ((o, t) for o, t in naming.modules if ours == o or ours.startswith(f"{o}/")), ("", "")
    )
    rest = [naming.parts.get(p, p) for p in ours.removeprefix(start).split("/") if p]
    return ".".join([part for part in (module, *rest) if part])


def count_layers(names: Mapping[str, Any], stem: str) -> int:
    """Return how many blocks `stem.N.` the names have."""
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)\.")
    return 1 + max((int(m[1]) for name in names if (m := pattern.match(name))), default=-1)


def _entries(
    path: Path, shape: tuple[int, ...], config: DenoiserConfig, layout: Layout
) -> Iterator[Entry]:
    form = PLAIN
    if path[-1] == "modulation":
        form = Form(leading=1)
    elif path[-2:] == ("patch_embedding", "kernel"):
        form = Form(kernel=True, window=config.patch)
    elif path[-1] == "kernel":
        form = KERNEL
    pattern = their_pattern(path, layout)
    for layer in range(shape[0]) if is_stacked(path) else [None]:
        yield Entry(pattern.format(layer), path, layer, form)


def is_stacked(path: Path) -> bool:
    """Tell whether a parameter of the denoiser has a leading axis of layers."""
    return "blocks" in path[:2]
