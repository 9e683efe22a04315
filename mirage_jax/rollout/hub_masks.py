"""Segmentation models of Hugging Face say what moves; in their own process (`torch_process.py`).

People, animals and vehicles are masked by the names of a model's labels, and sky; which of its
labels these are is said, and `--mask-labels` chooses others.
Conventions: masks True where something moves, or where sky is seen; `keep` True where neither is.
Read next: `mirage_jax/rollout/masks.py` (where masks hold), `hub_masks_forward.py` (which imports
torch).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.rollout.torch_process import TorchProcess

HUB = "hf:"
_SCRIPT = Path(__file__).with_name("hub_masks_forward.py")
_INSTALL = "pip install 'mirage-jax[depth]', or name a Python that has both: MIRAGE_TORCH_PYTHON"
# As Cityscapes, ADE20K, COCO, Mapillary Vistas and Pascal VOC call them.
_MOVING = frozenset(
    "person people human pedestrian rider bicyclist motorcyclist man woman boy girl child baby "
    "animal bird cat dog horse sheep cow cattle elephant bear zebra giraffe "
    "vehicle car truck bus train tram van caravan trailer motorcycle motorbike minibike bicycle "
    "airplane aeroplane plane boat ship".split()
)
_SKY = frozenset(("sky",))
# Said of a label without changing what it is: "sky-other-merged", "ground animal", "other rider".
_FILLING = frozenset(("other", "merged", "stuff", "ground"))
_SHOWN = 40


class Labels(NamedTuple):
    """Numbers of the labels that are masked."""

    moving: tuple[int, ...]
    sky: tuple[int, ...]


class Segments(NamedTuple):
    """What pictures show.

    Attributes:
        moving: [f, H, W] True where something moves, or is not to be kept.
        sky: [f, H, W] True where sky is seen.
    """

    moving: Bool[np.ndarray, "f H W"]
    sky: Bool[np.ndarray, "f H W"]


def choose_labels(names: Mapping[int, str], wanted: Iterable[str] = (), where: str = "") -> Labels:
    """Return which labels are masked.

    Args:
        names: of all labels, by number.
        wanted: names to mask, whatever their case; none for people, animals, vehicles and sky.
        where: begins messages.

    Raises:
        ValueError: a name that no label has, or no label that is known to move.
    """
    shown = ", ".join(list(names.values())[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if chosen := [word.strip() for word in wanted if word.strip()]:
        by_name: dict[str, list[int]] = {}
        for number, name in names.items():
            for one in (name, *re.split("[;,]", name)):
                by_name.setdefault(one.strip().lower(), []).append(number)
        for word in chosen:
            if word.lower() not in by_name:
                near = difflib.get_close_matches(word.lower(), by_name, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"its labels are: {shown}"
                raise ValueError(f"{where}--mask-labels: got {word!r}, no label of it; {hint}")
        numbers = sorted({number for word in chosen for number in by_name[word.lower()]})
    else:
        numbers = [number for number, name in names.items() if _is(name, _MOVING | _SKY)]
    sky = tuple(number for number in numbers if _is(names[number], _SKY))
    moving = tuple(number for number in numbers if number not in sky)
    if not numbers:
        raise ValueError(
            f"{where}no label of the model is known to move: got {shown}, expected some that name "
            "people, animals, vehicles or sky; choose with --mask-labels a,b"
        )
    return Labels(moving, sky)


def _is(name: str, words: frozenset[str]) -> bool:
    """Whether a label, or one of the names that it lists, is one of some words."""
    for one in re.split("[;,]", name.lower()):
        parts = [part for part in re.split("[^a-z]+", one) if part and part not in _FILLING]
        if len(parts) == 1 and parts[0] in words:
            return True
    return False


class HubMasks:
    """A segmentation model in a process of its own; a context manager that ends it.

    Attributes:
        name: "hf:" and the model, with the labels that were asked for.
        note: which labels are masked.
    """

    def __init__(self, model: str, wanted: Iterable[str] = (), device: str = "cpu") -> None:
        """Start the process and wait until the model is loaded.

        Args:
            model: name on the hub, or a folder with config, weights (safetensors) and processor.
            wanted: see `choose_labels`.
            device: of PyTorch.

        Raises:
            ValueError: PyTorch is missing, the model cannot be loaded, or its labels do not do.
        """
        self._model = model
        self._process = TorchProcess(_SCRIPT, (model, device), self._failed)
        names = {int(number): name for number, name in self._process.told["labels"].items()}
        wanted = tuple(wanted)
        try:
            self._labels = choose_labels(names, wanted, f"--mask hf:{model}: ")
        except ValueError:
            self.close()
            raise
        self.name = " ".join((f"{HUB}{model}", *wanted))
        masked = [names[number] for number in (*self._labels.moving, *self._labels.sky)]
        self.note = f"{HUB}{model}: not kept is what it labels {', '.join(masked)}"

    def segment(self, frames: UInt8[np.ndarray, "f H W 3"]) -> Segments:
        """Return what moves in pictures, and where sky is.

        Raises:
            ValueError: the process failed.
        """
        found = self._process.ask(frames)
        if found.shape != frames.shape[:3]:
            raise ValueError(
                f"--mask hf:{self._model}: got labels of shape {found.shape}, expected "
                f"{frames.shape[:3]}"
            )
        return Segments(np.isin(found, self._labels.moving), np.isin(found, self._labels.sky))

    def keep(self, frames: UInt8[np.ndarray, "f H W 3"]) -> Bool[np.ndarray, "f H W"]:
        """Return where pictures may be remembered: neither of both."""
        return ~np.logical_or(*self.segment(frames))

    def _failed(self, reason: str) -> ValueError:
        cure = "check the model's name or folder"
        if "No module named" in reason:
            cure = _INSTALL
        return ValueError(
            f"--mask hf:{self._model}: the segmentation model did not run ({reason}), expected a "
            f"segmentation model of Hugging Face with safetensors; {cure}"
        )

    def close(self) -> None:
        """End the process and remove its files."""
        self._process.close()

    def __enter__(self) -> HubMasks:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """See `close`."""
        self.close()
