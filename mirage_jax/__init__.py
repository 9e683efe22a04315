"""mirage_jax: a video world model that remembers in 3-D.

Its memory is a sparse grid of its own latent tokens, written by back-projection and read by
projection, in pure JAX functions that run unchanged on a CPU, a GPU or a TPU pod.

The names below are imported on first use, so that `import mirage_jax` (and `mirage --help`) stays
fast and never loads JAX. Conventions used everywhere: OpenCV cameras (x right, y down, z forward),
`cam_to_world` matrices, intrinsics in pixels with the centre of the top-left pixel at (0.5, 0.5),
z-depth in scene units with 0 = unknown, channel-last arrays.

Read next: `mirage_jax.memory` (the idea), `mirage_jax.rollout` (how a video is made from it),
`mirage_jax.train` (how the models are trained).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "Camera": "mirage_jax.geometry.camera",
    "LatentMemory": "mirage_jax.memory.state",
    "MemoryConfig": "mirage_jax.memory.config",
    "Purpose": "mirage_jax.prng",
    "key_for": "mirage_jax.prng",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mirage_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted(__all__)
