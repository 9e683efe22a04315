"""Choose the array module from the arrays themselves, so that geometry runs on NumPy and JAX alike.

Conventions: nothing here imports JAX. NumPy 2 arrays, JAX arrays and JAX tracers answer
``__array_namespace__``; where both kinds meet, the one that is not NumPy is used, so a constant
NumPy camera may travel with traced depth.

Read next: ``camera.py``.
"""

from typing import Any

import numpy as np


def array_namespace(*arrays: Any) -> Any:
    """Return the array module (``numpy`` or ``jax.numpy``) to compute with.

    Args:
      *arrays: arrays, tracers, or plain numbers and lists (these count as NumPy).

    Returns:
      The first namespace among the arguments that is not NumPy, else NumPy.
    """
    for array in arrays:
        namespace = getattr(array, "__array_namespace__", None)
        if namespace is not None and namespace() is not np:
            return namespace()
    return np


def as_float(array: Any, xp: Any) -> Any:
    """Return `array` as floating point of at least 32 bits; float64 stays float64.

    Geometry in half precision moves points by whole cells, so bf16 and float16 are widened.
    """
    array = xp.asarray(array)
    return array.astype(xp.result_type(array.dtype, np.float32))
