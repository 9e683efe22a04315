"""Where the parameters of the configs lie on a mesh of eight, as stored in `shardings.json`.

    python tests/distributed/shardings.py --update    # after a change that is meant

A parameter's entry is its shape and its partition spec. Of each config the parameters of the full
stage are listed; small arrays stay whole, as a run keeps them.
"""

import json
import sys
from pathlib import Path

from mirage_jax.distributed.axes import shardings_for
from mirage_jax.distributed.mesh import MeshConfig, abstract_mesh
from mirage_jax.models.functional import flatten
from mirage_jax.train import config as config_lib
from mirage_jax.train import tuning

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("shardings.json")
CONFIGS = ("doom.py:base", "wan5b.py:release", "wan5b.py:paper", "wan14b.py:release")
MESH = MeshConfig(fsdp=2, context=2, tensor=2)


def shardings(name: str) -> dict[str, str]:
    """Return "shape spec" of each parameter of a config, by name."""
    world = config_lib.load(str(ROOT / "configs" / name))
    lora = tuning.abstract_split(world, world.lora_train).trained["lora"]
    params = tuning.abstract_split(world, world.full_train).trained | {"lora": lora}
    axes = tuning.logical_axes(world, world.lora_train)
    placed = shardings_for(axes, params, abstract_mesh(MESH, 8), whole_below=world.mesh.whole_below)
    shapes = flatten(params)
    return {
        "/".join(path): f"{list(shapes[path].shape)} {_text(sharding.spec)}"
        for path, sharding in flatten(placed).items()
    }


def _text(spec) -> str:
    return (
        ", ".join("+".join(e) if isinstance(e, tuple) else str(e or "-") for e in spec) or "whole"
    )


def main() -> None:
    """Write the file, or say which entries differ."""
    found = {name: shardings(name) for name in CONFIGS}
    if "--update" in sys.argv:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        return
    stored = json.loads(FILE.read_text())
    for name in CONFIGS:
        keys = found[name].keys() | stored[name].keys()
        for key in sorted(k for k in keys if found[name].get(k) != stored[name].get(k)):
            sys.stdout.write(f"{name} {key}: {stored[name].get(key)} -> {found[name].get(key)}\n")


if __name__ == "__main__":
    main()
