"""Runs a program on eight simulated devices, for tests that compare it with one.

A process of its own, since devices are counted when JAX starts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parent
# Much is compiled and little is run, so it is compiled without optimising.
QUICK_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_FLAGS = f"--xla_force_host_platform_device_count=8 {QUICK_COMPILE}"


def environment(flags=_FLAGS):
    """Return the variables of a program that imports the package and what stands beside tests."""
    paths = os.pathsep.join(map(str, (_TESTS.parent, _TESTS)))
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": paths}


def outcome_of(program):
    """Run a program and return what it prints, read as JSON."""
    command = [sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
