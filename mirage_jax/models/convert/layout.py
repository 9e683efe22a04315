"""How a tensor of ours is named and laid out elsewhere, and moving values between the two.

Conventions: an `Entry` joins one tensor of theirs with one of ours, or with one layer of a stacked
one. Theirs are in PyTorch order (output channels first), ours have output channels last. Moving
only reorders values, so a round trip is exact to the bit. Tensors are arrays, or anything with
`shape`, `dtype` and `read()`, such as a `StoredTensor`.

Read next: `denoiser.py`, `lora.py`, `autoencoder.py` and `text_encoder.py` for the entries of each
model, `stream.py` for files.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from mirage_jax.models.functional import Params, Path, unflatten

Layout = Literal["release", "diffusers"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Form(NamedTuple):
    """How values are ordered there.

    Attributes:
      kernel: output channels come first there and last with us, input channels second there and
        last but one with us.
      leading: axes of length 1 in front that we do not have.
      trailing: axes of length 1 at the end that we do not have.
      window: sizes of the patch whose cells we fold into the input channels of a kernel.
    """

    kernel: bool = False
    leading: int = 0
    trailing: int = 0
    window: tuple[int, ...] = ()

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Return a view of their array in our order."""
        value = value.reshape(value.shape[self.leading : value.ndim - self.trailing])
        if not self.kernel:
            return value
        value = np.moveaxis(value, (0, 1), (-1, -2))
        return value.reshape(-1, value.shape[-1]) if self.window else value

    def to_theirs(self, value: np.ndarray) -> np.ndarray:
        """Return a view of our array in their order."""
        if self.window:
            value = value.reshape(*self.window, -1, value.shape[-1])
        if self.kernel:
            value = np.moveaxis(value, (-1, -2), (0, 1))
        return value.reshape(*(1,) * self.leading, *value.shape, *(1,) * self.trailing)


KERNEL = Form(kernel=True)
PLAIN = Form()


class Entry(NamedTuple):
    """One tensor of theirs and where it is with us.

    Attributes:
      theirs: its name there.
      ours: path of our parameter.
      layer: entry of the leading axis of a stacked parameter, or None.
      form: how its values are ordered there.
    """

    theirs: str
    ours: Path
    layer: int | None
    form: Form

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape there of a parameter that has `shape` with us."""
        shape = shape if self.layer is None else shape[1:]
        return self.form.to_theirs(np.broadcast_to(np.float32(0), shape)).shape


class Shaped(NamedTuple):
    """A tensor of which only the shape is known."""

    shape: tuple[int, ...]


def read(tensor: Any) -> np.ndarray:
    """Return the values of an array, or of something that reads its values on demand."""
    return tensor.read() if hasattr(tensor, "read") else np.asarray(tensor)


def check_entries(
    entries: Iterable[Entry], ours: Mapping[Path, Any], theirs: Mapping[str, Any], *, what: str
) -> None:
    """Raise unless their tensors are exactly those of the entries.

    Args:
      entries: of the whole model.
      ours: path -> anything with `.shape`, for every parameter of the model.
      theirs: name -> anything with `.shape`.
      what: begins the message.

    Raises:
      ValueError: listing by name all tensors that are missing, unexpected or misshapen.
    """
    expected = {e.theirs: e.their_shape(tuple(ours[e.ours].shape)) for e in entries}
    misshapen = [
        f"{name}: got {tuple(theirs[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in theirs and tuple(theirs[name].shape) != shape
    ]
    problems = [
        f"{title} ({count}): {', '.join(names)}"
        for title, count, names in (
            ("missing", *_folded(expected.keys() - theirs.keys())),
            ("unexpected", *_folded(theirs.keys() - expected.keys())),
            ("misshapen", len(misshapen), misshapen),
        )
        if count
    ]
    if problems:
        raise ValueError(
            f"{what} do not fit the model: {'; '.join(problems)}. Use the config, or the sizes, "
            "that they were made with, and give all files of the model."
        )


def to_ours(entries: Sequence[Entry], theirs: Mapping[str, Any], *, dtype: Any = None) -> Params:
    """Move tensors, checked before, to our tree; None keeps their dtypes."""
    layers: dict[Path, list[np.ndarray]] = {}
    for entry in entries:
        value = entry.form.to_ours(read(theirs[entry.theirs]))
        layers.setdefault(entry.ours, []).append(value)
    stacked = {entry.ours for entry in entries if entry.layer is not None}
    flat = {p: np.stack(parts) if p in stacked else parts[0] for p, parts in layers.items()}
    return unflatten(
        {path: jnp.asarray(value, dtype or value.dtype) for path, value in flat.items()}
    )


def to_theirs(
    entries: Iterable[Entry], ours: Mapping[Path, Any], *, dtype: Any = None
) -> dict[str, np.ndarray]:
    """Move flat parameters to their names and order; None keeps our dtypes."""
    tensors = {}
    for entry in entries:
        value = np.asarray(ours[entry.ours])
        value = entry.form.to_theirs(value if entry.layer is None else value[entry.layer])
        tensors[entry.theirs] = np.ascontiguousarray(
            value if dtype is None else value.astype(dtype)
        )
    return tensors


def layout_of(names: Collection[str], markers: Mapping[Layout, str], *, what: str) -> Layout:
    """Tell the layout of a model's tensors by names that only one layout has.

    Args:
      names: of the tensors.
      markers: layout -> regular expression found in some name of this layout and of no other.
      what: begins the message.

    Raises:
      ValueError: if none or several layouts fit.
    """
    found = [
        layout for layout, marker in markers.items() if any(re.search(marker, n) for n in names)
    ]
    if len(found) == 1:
        return found[0]
    some = ", ".join(sorted(names)[:4]) or "no tensors"
    raise ValueError(
        f"{what}: got names of {' and '.join(found) or 'no known layout'} ({some}, ...), expected "
        f"one of {', '.join(markers)}; check that the file holds this model"
    )


def _folded(names: Collection[str]) -> tuple[int, list[str]]:
    """Return the number of names, and all of them, joined where only a layer's number differs."""
    layers: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        head, number, tail = re.fullmatch(r"(?:(.*?)\b(\d+)\b)?(.*)", name).groups("")  # type: ignore[union-attr]
        layers.setdefault((head, tail), []).append(int(number or -1))
    folded = []
    for (head, tail), numbers in layers.items():
        folded.append(head + (_ranges(sorted(numbers)) if head else "") + tail)
    return len(names), sorted(folded)


def _ranges(numbers: list[int]) -> str:
    """Write sorted numbers as `3`, or as `{0-29}`, `{0-3,7}`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return text if len(numbers) == 1 else f"{{{text}}}"
