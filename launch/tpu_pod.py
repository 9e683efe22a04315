r"""Trains on a TPU slice of Google Cloud through queued resources.

    python launch/tpu_pod.py --name mirage --zone us-east5-a --type v5p-128 --spot \
        --setup 'sudo mount SERVER:/share /mnt && pip install -q "/mnt/mirage_jax[tpu]"' -- \
        mirage train --config configs/wan5b.py:paper --stage branch --mesh fsdp=-1 \
        --weights /mnt/wan5b --workdir /mnt/runs/wan5b

Asks for the slice, waits until it is there, runs --setup on every host, then the command on all of
them at once; they find each other by themselves. A command that was preempted is started again
where it was; when the slice itself is taken away, another is asked for. --workdir must be on
storage that all hosts see and that outlives the slice. At the end the slice is given back unless
--keep is set.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from command import PREEMPTED, Shell, parse

# Seconds between two looks at a request, which may wait for days.
_PATIENCE = 30
# What ssh says when a host goes away under it.
_CONNECTION_LOST = 255
_LOST = ("SUSPENDED", "SUSPENDING", "FAILED", "DELETING", "")
_CHIPS = {"v5p": "v2-alpha-tpuv5", "v5litepod": "v2-alpha-tpuv5-lite", "v6e": "v2-alpha-tpuv6e"}


def main() -> int:
    """Run the command until it ends by itself, and return its exit code."""
    options = parse(__doc__ or "", _add_options)
    slices = _Slice(options, Shell(options.dry_run))
    code = 1
    for _ in range(options.restarts + 1):
        if not slices.obtain():
            print("launch: the request failed; see gcloud compute tpus queued-resources describe")
            return 1
        code = slices.train()
        there = slices.state() == "ACTIVE"
        if code == 0 or (there and code != _CONNECTION_LOST):
            break
        print(f"launch: exit code {code}, the slice is {'there' if there else 'gone'}: once more")
        if not there:
            slices.give_back()
    if not options.keep:
        slices.give_back()
    return code


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="of the queued resource and its node")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", help="default: gcloud's own")
    parser.add_argument("--type", required=True, help="accelerator type, e.g. v5p-128, v6e-256")
    parser.add_argument("--runtime", help="runtime version; default: that of the type")
    parser.add_argument("--spot", action="store_true", help="capacity that may be taken away")
    parser.add_argument("--setup", required=True, help="shell command for every host: installs")
    parser.add_argument("--keep", action="store_true", help="keep the slice at the end")


class _Slice:
    """The slice of the options."""

    def __init__(self, options: argparse.Namespace, shell: Shell) -> None:
        self._options, self._shell = options, shell
        self._pretended = ""  # state of the request in a dry run
        self._where = ["--zone", options.zone]
        if options.project:
            self._where += ["--project", options.project]

    def obtain(self) -> bool:
        """Ask for the slice if it is not there, wait for it, and set its hosts up."""
        options = self._options
        if self.state() not in ("ACTIVE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACCEPTED"):
            runtime = options.runtime or _CHIPS.get(options.type.split("-")[0])
            if runtime is None:
                sys.exit(f"launch: --runtime is needed for {options.type!r}")
            words = ["create", options.name, "--node-id", options.name, *self._where]
            words += ["--accelerator-type", options.type, "--runtime-version", runtime]
            if self._queued(*words, *(["--spot"] if options.spot else [])):
                return False
            self._pretended = "ACTIVE"
        while (state := self.state()) != "ACTIVE":
            if state in _LOST:
                return False
            time.sleep(_PATIENCE)
        return self._everywhere(options.setup) == 0

    def state(self) -> str:
        """Return the state of the request, "" if there is none."""
        words = ["describe", self._options.name, *self._where, "--format", "value(state.state)"]
        program = ["gcloud", "compute", "tpus", "queued-resources", *words]
        return self._shell.read(*program, in_dry_run=self._pretended)

    def train(self) -> int:
        """Run the command on all hosts, again as long as it was preempted; return its exit code."""
        # On the hosts, since gcloud's own exit code says only that some host failed.
        command = shlex.join(self._options.command)
        again = f'[ "$code" -eq {PREEMPTED} ] || exit "$code"'
        return self._everywhere(f"while true; do {command}; code=$?; {again}; sleep 30; done")

    def give_back(self) -> None:
        """Delete the request and its node."""
        self._queued("delete", self._options.name, *self._where, "--force", "--quiet")

    def _queued(self, *words: str) -> int:
        return self._shell.run("gcloud", "compute", "tpus", "queued-resources", *words)

    def _everywhere(self, command: str) -> int:
        words = ["ssh", self._options.name, *self._where, "--worker", "all", "--command", command]
        return self._shell.run("gcloud", "compute", "tpus", "tpu-vm", *words)


if __name__ == "__main__":
    sys.exit(main())
