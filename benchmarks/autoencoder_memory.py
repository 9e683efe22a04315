"""Memory that 257 frames of 128x192 take through the autoencoder, whole and in pieces.

`python -m benchmarks.autoencoder_memory` encodes and decodes a clip in a process of its own
for each way and length, and reports what the process's peak resident memory grew by, over what it
held before the clip was made. In pieces it must not depend on the length; whole it does.
The last line is one JSON object.

Read next: `mirage_jax/models/autoencoder_pieces.py`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.autoencoder_pieces import decode_pieces, encode_pieces

CONFIG = AutoencoderConfig(encoder_width=16, decoder_width=24)
HEIGHT, WIDTH, READ = 128, 192, 16


def frames(count: int) -> Iterator[np.ndarray]:
    """Make frames as a reader would, a few at a time."""
    random = np.random.default_rng(0)
    for start in range(0, count, READ):
        shape = (1, min(READ, count - start), HEIGHT, WIDTH, 3)
        yield random.uniform(-1, 1, shape).astype(np.float32)


def whole(method: str) -> Callable[..., jax.Array]:
    """Return a compiled method of the autoencoder."""
    return jax.jit(lambda params, x: functional.apply(CONFIG, params, x, method=method))


def measure(way: str, count: int) -> None:
    """Run one way in this process and print megabytes of peak memory, and a checksum."""
    params = functional.init(CONFIG, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0.0
    if way == "pieces":
        latents = encode_pieces(CONFIG, params, frames(count))
        for pixels in decode_pieces(CONFIG, params, latents):
            total += float(np.abs(pixels).sum())
    else:
        video = np.concatenate(list(frames(count)), axis=1)
        latents = whole("encode")(params, video)
        total = float(np.abs(whole("decode")(params, latents)).sum())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"MB": round(grown / 1024), "sum": total}))


def main() -> None:
    """Start one process a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[65, 257])
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FRAMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    summary = {}
    for way in ("pieces", "whole"):
        for count in options.frames:
            command = [sys.executable, "-m", "benchmarks.autoencoder_memory", "--measure"]
            done = subprocess.run([*command, way, str(count)], check=True, capture_output=True)
            result = json.loads(done.stdout.splitlines()[-1])
            summary[f"{way} {count}"] = result
            print(f"{way:7s} {count:4d} frames  {result['MB']:6d} MB", flush=True)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
