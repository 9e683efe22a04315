r"""Trains on whatever cloud has the accelerators, through SkyPilot's managed jobs.

    python launch/sky.py --accelerators H100:8 --nodes 2 --bucket s3://BUCKET/mirage -- \
        mirage train --config configs/wan5b.py:paper --stage branch --mesh fsdp=-1 \
        --weights /bucket/wan5b --workdir /bucket/runs/wan5b

SkyPilot brings up the nodes, runs the command on each, and starts it again elsewhere when they are
taken away or the command says that it was preempted. The bucket is mounted at /bucket on all nodes;
--workdir belongs there. The working folder is sent along and installed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from command import PREEMPTED, Shell, parse

# JAX asks for one coordinator, and for the number of this process among all.
_RUN = """export JAX_COORDINATOR_ADDRESS="$(echo "$SKYPILOT_NODE_IPS" | head -n1):8476"
export JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES"
export JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"
"""


def main() -> int:
    """Hand the job to SkyPilot, which returns once it is launched."""
    options = parse(__doc__ or "", _add_options)
    # JSON is YAML.
    task = json.dumps(_task(options), indent=1)
    if options.dry_run:
        print(task)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mirage.yaml"
        path.write_text(task)
        words = ["sky", "jobs", "launch", "--yes", "--name", options.name, str(path)]
        return Shell(options.dry_run).run(*words)


def _task(options: argparse.Namespace) -> dict[str, Any]:
    recovery = {"max_restarts_on_errors": 0, "recover_on_exit_codes": [PREEMPTED]}
    resources = {
        "accelerators": options.accelerators,
        "use_spot": options.spot,
        "job_recovery": recovery,
    }
    task: dict[str, Any] = {
        "name": options.name,
        "num_nodes": options.nodes,
        "workdir": ".",
        "resources": resources,
        "setup": f"pip install -q '.[{options.extra}]'",
        "run": _RUN + shlex.join(options.command),
    }
    if options.bucket:
        task["file_mounts"] = {"/bucket": {"source": options.bucket, "mode": "MOUNT"}}
    return task


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="mirage")
    parser.add_argument("--accelerators", required=True, help="of each node, e.g. H100:8")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--spot", action="store_true", help="capacity that may be taken away")
    parser.add_argument("--bucket", help="storage that outlives the nodes, e.g. s3://BUCKET")
    parser.add_argument("--extra", default="cuda", help="of the package: cuda or tpu")


if __name__ == "__main__":
    sys.exit(main())
