"""What every test shares: the CPU as device, no display, no network.

Set before anything imports JAX; a value already set by the caller is respected.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Test workers run side by side; BLAS threads of their own would only fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
