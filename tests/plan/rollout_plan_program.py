"""Plans a chunk of a tiny world's rollouts for one and for eight simulated devices, as JSON.

A program of its own, since devices are counted when JAX starts; `test_rollout_plan.py` runs it.
"""

import json
import sys
from pathlib import Path

import jax

from mirage_jax.distributed.targets import parse_target
from mirage_jax.plan import make
from mirage_jax.train import config as config_lib

ONE = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
# What is computed does not matter: the devices of this process stand for those of a target.
PLANS = [("v5e:1x1", ONE), ("v5e:2x4", ONE | {"fsdp": 4, "context": 2})]


def main():
    """Plan and print."""
    path = Path(__file__).parents[2] / "configs" / "procedural.py"
    world = config_lib.replace(config_lib.load(str(path)), {"mesh.whole_below": 0})
    plans = []
    for name, sizes in PLANS:
        target = parse_target(name)
        plan = make.plan_rollout(world, target, jax.devices()[: target.devices], sizes)
        plans.append(plan.values())
    sys.stdout.write(json.dumps(plans) + "\n")


if __name__ == "__main__":
    main()
