"""What every test shares: the CPU as device, no display, no network, room for compiled programs.

Set before anything imports JAX; a value already set by the caller is respected.
"""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Test workers run side by side; BLAS threads of their own would only fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Linux gives a process 65,530 mappings by default, and every compiled program keeps some fifteen. A
# worker that comes near dies in the compiler, in whichever test is its turn.
_MOST_MAPPINGS = 30_000
_MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _room_for_compiled_programs():
    """Forget the programs of the tests so far when they are many."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()
