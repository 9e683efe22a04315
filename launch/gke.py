r"""Trains on TPUs of a GKE cluster through xpk.

    python launch/gke.py --cluster pods --workload mirage --tpu-type v5p-128 \
        --docker-image REGION-docker.pkg.dev/PROJECT/mirage/train:latest -- \
        mirage train --config configs/wan5b.py:paper --stage branch --mesh data=2,fsdp=-1 \
        --weights /gcs/wan5b --workdir /gcs/runs/wan5b

xpk makes a job set of the command, one pod a host, on one slice or several; Kubernetes starts it
again when it was preempted. The image has the package with its extra `tpu`. --workdir must be on
storage that all pods see.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from command import PREEMPTED, Shell, parse


def main() -> int:
    """Hand the command to the cluster; xpk returns once it is queued."""
    options = parse(__doc__ or "", _add_options)
    words = ["xpk", "workload", "create", "--cluster", options.cluster]
    words += ["--workload", options.workload, "--tpu-type", options.tpu_type]
    words += ["--num-slices", str(options.num_slices), "--docker-image", options.docker_image]
    for name in ("project", "zone"):
        if value := getattr(options, name):
            words += [f"--{name}", value]
    words += ["--max-restarts", str(options.restarts), "--restart-on-exit-codes", str(PREEMPTED)]
    return Shell(options.dry_run).run(*words, "--command", shlex.join(options.command))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--workload", required=True, help="name of the job")
    parser.add_argument("--tpu-type", required=True, help="e.g. v5p-128")
    parser.add_argument("--num-slices", type=int, default=1)
    parser.add_argument("--docker-image", required=True, help="with the package installed")
    parser.add_argument("--project", help="default: gcloud's own")
    parser.add_argument("--zone", help="default: gcloud's own")


if __name__ == "__main__":
    sys.exit(main())
