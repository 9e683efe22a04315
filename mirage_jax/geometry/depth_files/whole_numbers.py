"""From stored whole numbers to scene units: 16-bit pictures and integer arrays need a unit.

No file of this kind says it: millimetres (Kinect, ScanNet, 7-Scenes) and fifths of millimetres
(TUM) are both common. Without a unit the file is refused with what each would mean. 0 is unknown
everywhere; so is 65535 where many pixels have it (the mark of saturated sensors).

Read next: ``formats.py``.
"""

import numpy as np

from mirage_jax.geometry.depth_files.depth_maps import DepthReading

_COMMON = (("mm", 0.001), ("unit=0.0002", 0.0002))
_SATURATED = 65535
_MANY = 0.001


def in_scene_units(
    array: np.ndarray, path: str, reading: DepthReading
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return float32 values in scene units, and notes.

    Raises:
      ValueError: 8-bit values, or whole numbers without a unit.
      TypeError: not numbers.
    """
    kind = array.dtype.kind
    notes: tuple[str, ...] = ()
    if kind not in "fiu":
        raise TypeError(f"{path}: does not hold numbers: got dtype {array.dtype}. Save float32.")
    if kind == "f":
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            array = array if reading.unit is None else array.astype(np.float64) * reading.unit
            return array.astype(np.float32), notes
    if array.dtype.itemsize == 1:
        raise ValueError(
            f"{path}: holds 8-bit values: got {array.dtype}, expected 16 bits or floating point. "
            "It is a picture of depth, not depth; export the values themselves."
        )
    saturated = array == _SATURATED
    if array.dtype.itemsize == 2 and saturated.mean() > _MANY:
        array = np.where(saturated, 0, array)
        notes = (f"{saturated.mean():.1%} of the pixels are 65535 and taken as unknown",)
    if reading.unit is None and reading.kind != "disparity":
        known = array[array > 0]
        middle = float(np.median(known)) if known.size else 0.0
        lines = [f"  --depth-as {word}: the median is {middle * by:.4g}" for word, by in _COMMON]
        raise ValueError(
            f"{path}: holds whole numbers and does not say their unit: got {array.dtype} with a "
            f"median of {middle:.6g}. Choose one of (or unit=NUMBER)\n" + "\n".join(lines)
        )
    unit = 1.0 if reading.unit is None else reading.unit
    return (array * np.float64(unit)).astype(np.float32), notes
