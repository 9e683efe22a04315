"""The wrappers that training code leaves around tensor names, taken off.

Conventions: a wrapper is a leading part of a dotted name (`module.`, `pipe.vace.`, ...) or a key of
an outer dictionary; any nesting of them may occur.

Read next: `denoiser.py`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_WRAPPERS = frozenset(
    {
        "module", "model", "base_model", "generator", "pipe", "vace", "dit",
        "state_dict", "transformer", "diffusion_model", "text_encoder", "vae",
    }
)  # fmt: skip


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
