"""Plans a memory over the simulated devices of this process, as JSON.

A program of its own, since devices are counted when JAX starts; `test_local_plan.py` runs it.
"""

import json
import sys

import jax

from mirage_jax.distributed.targets import local_target
from mirage_jax.plan.memory import plan_memory

if __name__ == "__main__":
    plan = plan_memory(10_000, local_target(), jax.local_devices())
    sys.stdout.write(json.dumps(plan.values()) + "\n")
