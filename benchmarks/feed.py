"""Clips a second that one process reads from a data set, in the order in which training draws them.

`python -m benchmarks.feed --data data/doom` draws batches by index from shuffled epochs, decodes
every array of each clip, and cuts windows. Without `--data` a small data set of boxes is recorded
first. `--batch` and `--step-seconds` say what a training step asks for, which is printed beside.
The first pass, which opens files, is not timed. The last line is one JSON object.

Read next: `mirage_jax/data/mixture.py`, `mirage_jax/data/source.py`.
"""

import argparse
import json
import tempfile
import time

from mirage_jax.data.mixture import order_of
from mirage_jax.data.procedural import ProceduralConfig, record_split
from mirage_jax.data.sampling import BatchSpec, batch_at
from mirage_jax.data.source import ClipSource, open_clips


def clips_a_second(clips: ClipSource, batch: int, steps: int) -> dict[str, float]:
    """Time whole clips drawn by index, and batches of 33-frame windows of what training reads."""
    order = order_of(clips)
    window = BatchSpec(batch=batch, frames=min(33, clips.shape.frames))

    def whole(step: int) -> None:
        for index in order.indices(0, step, batch):
            clips[int(index)]

    found = {}
    for name, read in (
        ("order_only", lambda step: order.indices(0, step, batch)),
        ("whole_clips", whole),
        ("windows", lambda step: batch_at(clips, 0, step, window)),
    ):
        read(0)
        begin = time.perf_counter()
        for step in range(1, steps + 1):
            read(step)
        found[name] = round(steps * batch / (time.perf_counter() - begin), 1)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of a data set; default: records boxes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--step-seconds", type=float, help="of a training step, to compare with")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if flags.data is None:
            record_split(folder, flags.split, 4, config=ProceduralConfig(supersample=1))
        clips = open_clips(flags.data or folder, flags.split)
        result = {"clips": len(clips), "shape": list(clips.shape)}
        result |= clips_a_second(clips, flags.batch, flags.steps)
    if flags.step_seconds:
        result["needed"] = round(flags.batch / flags.step_seconds, 1)
    for name, value in result.items():
        print(f"{name:<14}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
