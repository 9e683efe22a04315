"""One training of the drill, seen from outside: a command, its processes, and what lies on disk."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_ROOT = Path(__file__).parents[2]
_PATIENCE = 600.0


class Failed(Exception):
    """What was expected of a case did not happen."""


def require(condition: object, what: str) -> None:
    """Fail the case unless the condition holds."""
    if not condition:
        raise Failed(what)


class Training:
    """`mirage train` of the drill's world in one workdir, started as often as needed."""

    def __init__(self, workdir: Path, steps: int, seed: int = 3) -> None:
        self.workdir, self.steps = workdir, steps
        self.checkpoints = workdir / "codec" / "checkpoints"
        self.log = workdir.with_suffix(".log")
        self._seed = seed
        self._launcher: subprocess.Popen | None = None
        self._begin = 0

    def start(
        self, mesh: str = "data=2,fsdp=2", count: int = 2, devices: int = 2, restarts: int = 0
    ) -> "Training":
        """Start the processes; their output goes to `log`."""
        config = f"{Path(__file__).with_name('world.py')}:{self.steps}"
        train = [sys.executable, "-m", "mirage_jax.cli.main", "train", "--config", config]
        train += ["--stage", "codec", "--workdir", str(self.workdir), "--mesh", mesh]
        launch = [sys.executable, str(_ROOT / "launch" / "local.py"), str(count)]
        launch += ["--devices-per-process", str(devices), "--restarts", str(restarts), "--"]
        environment = os.environ | {
            "PYTHONPATH": str(_ROOT),
            # Compiling is most of what a start takes.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(self.workdir.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._launcher = subprocess.Popen(
                [*launch, *train], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=_ROOT
            )
        return self

    @property
    def output(self) -> str:
        """What was printed since the last start."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    @property
    def saved(self) -> int:
        """The newest complete checkpoint, or 0."""
        with contextlib.suppress(FileNotFoundError):
            return max(
                (int(p.name) for p in self.checkpoints.iterdir() if p.name.isdigit()), default=0
            )
        return 0

    @property
    def unfinished(self) -> list[str]:
        """Checkpoints that are being written, or were when their writer was killed."""
        with contextlib.suppress(FileNotFoundError):
            return [p.name for p in self.checkpoints.iterdir() if "tmp" in p.name]
        return []

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait while the training runs until the condition holds."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            over = self._launcher.poll() is not None or time.monotonic() > deadline
            require(not over, f"ended or took too long before {what}; see {self.log}")
            time.sleep(0.002)

    def send(self, number: int, index: int) -> None:
        """Send a signal to one of the processes."""
        os.kill(self.pids()[index], number)

    def pids(self) -> list[int]:
        """Process ids of all processes, since the last restart."""
        last = self.output.rpartition(": restart")[2]
        return [int(pid) for pid in re.findall(r"process \d+: pid (\d+)", last)]

    def interrupt(self) -> None:
        """Press Ctrl-C at the launcher."""
        self._launcher.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for the end and return the launcher's exit code."""
        try:
            return self._launcher.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failed(f"did not end; see {self.log}") from None

    def stop(self) -> None:
        """End everything that still runs."""
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._launcher.wait(90)
            self._launcher.kill()

    def kill_one(self, index: int) -> None:
        """Kill one process; the launcher has to end the other and say so."""
        self.send(signal.SIGKILL, index)
        code = self.end()
        require(code, "exit code 0 although a process was killed")

    def go_on(self, **how: object) -> int:
        """Start again, to the end; return the step from which it went on."""
        code = self.start(**how).end()
        require(code == 0, f"exit code {code} after a restart; see {self.log}")
        return self.began_at()

    def began_at(self) -> int:
        """The step at which the last start began."""
        found = re.findall(r" step=(\d+) of ", self.output)
        require(found, f"no line says where training began; see {self.log}")
        return int(found[-1])

    def parameters(self) -> dict[str, np.ndarray]:
        """What was exported at the end."""
        return load_file(self.workdir / "codec.safetensors")

    def state(self) -> dict[str, list]:
        """Type, shape and fingerprint of each array of the last checkpoint."""
        text = (self.checkpoints / str(self.steps) / "_CHECKPOINT_METADATA").read_text()
        return json.loads(text)["custom_metadata"]["arrays"]

    def largest_file(self, step: int) -> Path:
        """The largest file of a checkpoint: one that holds arrays."""
        files = (p for p in (self.checkpoints / str(step)).rglob("*") if p.is_file())
        return max(files, key=lambda path: path.stat().st_size)
