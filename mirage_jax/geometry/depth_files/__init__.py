"""Read depth in the formats people bring, with clear refusals where a file has two readings.

What comes back says what its values mean (``DepthMaps``); ``z_depth`` gives what the rest of the
package takes: z-depth in scene units, 0 = unknown.

Read next: ``formats.py`` (the table), ``depth_maps.py`` (the readings).
"""

from mirage_jax.geometry.depth_files.depth_maps import (
    WORDS,
    DepthMaps,
    DepthReading,
    depth_from_range,
    depth_reading_of,
    pseudo_depth,
    z_depth,
)
from mirage_jax.geometry.depth_files.formats import EXPECTED, read_depth, write_depth

__all__ = [
    "EXPECTED",
    "WORDS",
    "DepthMaps",
    "DepthReading",
    "depth_from_range",
    "depth_reading_of",
    "pseudo_depth",
    "read_depth",
    "write_depth",
    "z_depth",
]
