"""Seconds from a training command to its first update, for each stage of the world of boxes.

`python -m benchmarks.start_up` runs `mirage train --steps 1` stage after stage in a fresh folder
and watches for the first line of metrics. The later stages include encoding the clips. The last
line is one JSON object: seconds to the first update, and those in which the update compiled.

Read next: `mirage_jax/train/goodput.py`.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "procedural.py"
STAGES = ("codec", "depth", "denoiser")


def first_update(stage: str, workdir: Path) -> dict[str, float]:
    """Train one step of a stage; return the seconds until it was made and those of compiling."""
    command = [sys.executable, "-m", "mirage_jax.cli.main", "train", "--config", str(CONFIG)]
    command += ["--stage", stage, "--workdir", str(workdir), "--steps", "1"]
    folder, begin, seconds = workdir / stage, time.monotonic(), None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as training:
        while training.poll() is None:
            if seconds is None and _has_loss(folder / "metrics.jsonl"):
                seconds = time.monotonic() - begin
            time.sleep(0.05)
    if training.returncode or seconds is None:
        raise RuntimeError(f"{' '.join(command)}: exit code {training.returncode}, no first update")
    spent = json.loads((folder / "goodput.json").read_text())["seconds"]
    return {"first_update_s": round(seconds, 1), "compile_s": round(spent["compile"], 1)}


def _has_loss(metrics: Path) -> bool:
    return metrics.exists() and '"train/loss"' in metrics.read_text()


def main() -> None:
    """Time every stage."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            result[stage] = first_update(stage, Path(folder))
            print(stage, result[stage], flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
