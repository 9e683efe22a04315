"""Measures the memory that `mirage convert` takes, on a synthetic set of weights of any size.

    python benchmarks/convert_memory.py                 # as Wan2.2-TI2V-5B: 10 GB, bfloat16
    python benchmarks/convert_memory.py --scale 0.2     # a small one

Makes sharded weights in a temporary folder, converts them into a world and back to the release's
layout, each in a process of its own whose peak memory the kernel reports, and compares what comes
back with what went in. Needs three times the size of the weights on disk. The last line is JSON:
for each direction the peak in bytes, the largest shard, their ratio, seconds and GB/s.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from mirage_jax.models.convert.denoiser import denoiser_entries
from mirage_jax.models.convert.sources import open_source
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import abstract_params, flatten
from mirage_jax.models.tensor_file import TensorWriter

_SHARDS = 3
_MIRAGE = [sys.executable, "-m", "mirage_jax.cli.main", "convert"]
_INDEX = "diffusion_pytorch_model.safetensors.index.json"


def main() -> None:
    """Make weights, convert them both ways, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of width and layers")
    parser.add_argument("--folder", help="where to make the temporary folder")
    arguments = parser.parse_args()
    config = _config(arguments.scale)
    with tempfile.TemporaryDirectory(prefix="mirage-convert-", dir=arguments.folder) as name:
        root = Path(name)
        size, largest = _make(root / "released", config)
        print(f"made {size / 1e9:.2f} GB in {_SHARDS} shards, the largest {largest / 1e9:.2f} GB")
        heads = str(config.heads)
        flags = [
            "--backbone",
            str(root / "released"),
            "--heads",
            heads,
            "--out",
            str(root / "ours"),
        ]
        result = {"bytes": size, "largest_shard": largest}
        result["import"] = _measured(flags, size, largest)
        flags = ["--from", str(root / "ours"), "--to", "release", "--out", str(root / "back")]
        flags += ["--shard-gb", str(largest / 1e9)]
        result["export"] = _measured(flags, size, largest)
        result["bit_exact"] = _equal(root / "released", root / "back" / "backbone")
    print(json.dumps(result))


def _config(scale: float) -> DenoiserConfig:
    """Return the 5B backbone, or one of about `scale` times its width and layers."""
    heads, layers = max(1, round(24 * scale)), max(2, round(30 * scale))
    return DenoiserConfig(
        width=128 * heads,
        heads=heads,
        layers=layers,
        mlp_width=max(128, round(14336 * scale)),
        text_width=max(64, round(4096 * scale)),
        branch_layers=(),
        condition_channels=0,
    )


def _make(folder: Path, config: DenoiserConfig) -> tuple[int, int]:
    """Write random bfloat16 weights in the release's layout; return bytes and largest shard."""
    shapes = flatten(abstract_params(config))
    layout = {
        entry.theirs: jax.ShapeDtypeStruct(
            entry.their_shape(shapes[entry.ours].shape), ml_dtypes.bfloat16
        )
        for entry in denoiser_entries(config, "release")
    }
    names = sorted(layout)
    draw = np.random.default_rng(0)
    listed: dict[str, str] = {}
    sizes = []
    for shard in range(_SHARDS):
        part = names[shard * len(names) // _SHARDS : (shard + 1) * len(names) // _SHARDS]
        path = folder / f"diffusion_pytorch_model-{shard + 1:05d}-of-{_SHARDS:05d}.safetensors"
        with TensorWriter(path, {name: layout[name] for name in part}, {"format": "pt"}) as file:
            for name in part:
                leaf = layout[name]
                bits = draw.integers(0, 2**16, leaf.shape, np.uint16)
                file.write(name, bits.view(ml_dtypes.bfloat16))
        listed |= dict.fromkeys(part, path.name)
        sizes.append(path.stat().st_size)
    index: dict[str, Any] = {"metadata": {"total_size": sum(sizes)}, "weight_map": listed}
    (folder / _INDEX).write_text(json.dumps(index))
    return sum(sizes), max(sizes)


def _measured(flags: list[str], size: int, largest: int) -> dict[str, float]:
    start = time.perf_counter()
    process = subprocess.Popen([*_MIRAGE, *flags])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"mirage convert {' '.join(flags)} failed")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = usage.ru_maxrss * unit
    return {
        "peak_rss": peak,
        "over_largest_shard": round(peak / largest, 3),
        "seconds": round(seconds, 1),
        "gb_per_second": round(size / seconds / 1e9, 3),
    }


def _equal(first: Path, second: Path) -> bool:
    ours, theirs = open_source(first).tensors, open_source(second).tensors
    return ours.keys() == theirs.keys() and all(
        ours[name].read().tobytes() == theirs[name].read().tobytes() for name in ours
    )


if __name__ == "__main__":
    main()
