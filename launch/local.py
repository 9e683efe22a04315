r"""Starts one command as several processes on this machine: the run of a cluster, on a desk.

    python launch/local.py 2 --devices-per-process 4 -- mirage train --mesh data=-1 \
        --config configs/procedural.py --stage codec --workdir runs/boxes

With --devices-per-process each process simulates so many devices on the CPU; without, it takes what
JAX finds. Each line of output gets the number of its process. When one fails, the others are ended
and its exit code is the launcher's. Exit code 75 (saved, since the machine is wanted back) starts
all of them again, up to --restarts times. Ctrl-C and SIGTERM are passed on.

Needs nothing but Python and the package; tells processes of each other by JAX's own variables
(JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from command import PREEMPTED, parse

# Seconds that the others get to end by themselves when one was asked to stop.
_GRACE = 60.0
# What the collectives of the CPU say on standard output whenever they are set up.
_NOISE = "[Gloo] Rank "


def main() -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__ or "", _add_options, restarts=0)
    for attempt in range(options.restarts + 1):
        plan = _environments(options)
        if options.dry_run:
            _show(plan, options.command)
            return 0
        group = _Group(plan, options.command)
        code = group.run()
        # Whoever ended this program wants the machine, and will start it again himself.
        if code != PREEMPTED or group.stopping or attempt == options.restarts:
            return code
        print(f"[launch] exit code {code}: restart {attempt + 1} of {options.restarts}", flush=True)
    return PREEMPTED


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", type=_positive, metavar="N", help="number of processes")
    parser.add_argument("--devices-per-process", type=_positive, metavar="K", help="CPU devices")
    parser.add_argument("--port", type=int, default=0, help="of the coordinator; default: any free")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 1 up")
    return int(text)


def _environments(options: argparse.Namespace) -> list[dict[str, str]]:
    """Return the variables that each process gets beside those of this one."""
    shared = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{options.port or _free_port()}",
        "JAX_NUM_PROCESSES": str(options.count),
        "PYTHONUNBUFFERED": "1",
    }
    if options.devices_per_process:
        flag = f"--xla_force_host_platform_device_count={options.devices_per_process}"
        given = os.environ.get("XLA_FLAGS", "")
        shared |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{given} {flag}".strip()}
    return [shared | {"JAX_PROCESS_ID": str(index)} for index in range(options.count)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _show(plan: list[dict[str, str]], command: list[str]) -> None:
    for extra in plan:
        print(shlex.join(["env", *(f"{k}={v}" for k, v in extra.items()), *command]))


class _Group:
    """The processes of one attempt."""

    def __init__(self, plan: list[dict[str, str]], command: list[str]) -> None:
        self.stopping = False
        self._processes: list[subprocess.Popen[str]] = []
        self._printing = threading.Lock()
        for extra in plan:
            # A session of its own: Ctrl-C of the terminal reaches this program alone.
            process = subprocess.Popen(
                command,
                env=os.environ | extra,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._processes.append(process)
            self._say(f"[launch] process {len(self._processes) - 1}: pid {process.pid}")
        self._readers = [
            threading.Thread(target=self._pass_on, args=(index, process))
            for index, process in enumerate(self._processes)
        ]

    def run(self) -> int:
        """Wait for all and return the exit code of the first that failed, or 0."""
        for reader in self._readers:
            reader.start()
        old = {s: signal.signal(s, self._forward) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = self._wait()
        finally:
            self._end_all()
            for reader in self._readers:
                reader.join()
            for number, handler in old.items():
                signal.signal(number, handler)
        return code

    def _wait(self) -> int:
        running = dict(enumerate(self._processes))
        while running:
            for index, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[index]
                if code:
                    code = 128 - code if code < 0 else code  # as shells say "ended by a signal"
                    self._say(f"[launch] process {index} ended with exit code {code}")
                    self._give_time(running, code)
                    return code
            time.sleep(0.05)
        return 0

    def _give_time(self, running: dict[int, subprocess.Popen[str]], code: int) -> None:
        """Let the others finish what they save, if that is what the first one did."""
        asked = code == PREEMPTED or self.stopping
        deadline = time.monotonic() + (_GRACE if asked else 0.0)
        while time.monotonic() < deadline and any(p.poll() is None for p in running.values()):
            time.sleep(0.05)

    def _end_all(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _forward(self, number: int, frame: object) -> None:
        self.stopping = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _pass_on(self, index: int, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        for line in process.stdout:
            if not line.startswith(_NOISE):
                self._say(f"[{index}] {line.rstrip()}")

    def _say(self, line: str) -> None:
        with self._printing:
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
