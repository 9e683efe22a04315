"""What may befall a training, and what is to be true afterwards.

Each case disturbs a training of its own and returns a line about what happened; it raises `Failed`
where the promise is broken.
"""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import numpy as np

from mirage_jax.distributed.exit_codes import FAILED, INTERRUPTED, PREEMPTED
from tests.drill.training import Training, require

# Seconds; the first collective of two processes waits for 30.
_STANDSTILL = 40


def killed(run: Training, rng: random.Random) -> str:
    """SIGKILL of one process, at a random moment of the start, then twice of the loop."""
    told = []
    for attempt in range(3):
        run.start().wait_until(lambda: len(run.pids()) == 2, "its processes")
        if attempt:
            soon = run.saved + 1
            run.wait_until(lambda least=soon: run.saved >= least, "a checkpoint")
        # Any moment of what follows: between steps, in one, in a save.
        time.sleep(rng.uniform(0.0, 0.5 if attempt else 12.0))
        index = rng.randrange(2)
        run.kill_one(index)
        told.append(f"process {index} after step {run.saved}")
    left = run.saved
    began = run.go_on()
    require(began == left, f"went on from step {began}, expected {left}")
    return f"killed {', '.join(told)}; went on from {began}"


def killed_in_a_save(run: Training, rng: random.Random) -> str:
    """SIGKILL of one process while a checkpoint is being written."""
    tries = 0
    while not run.unfinished:
        tries += 1
        require(tries <= 8, "no save could be hit in eight tries")
        if run.saved > run.steps // 2:
            shutil.rmtree(run.workdir)
        run.start().wait_until(lambda: run.saved > 0, "a first checkpoint")
        run.wait_until(lambda: run.unfinished, "the next save")
        time.sleep(rng.uniform(0.0, 0.01))
        run.kill_one(rng.randrange(2))
    step, left = run.unfinished[0].partition(".")[0], run.saved
    began = run.go_on()
    require(began == left, f"went on from step {began}, expected {left}")
    require(not run.unfinished, "what was not finished is still there")
    return f"killed while step {step} was written (try {tries}); went on from {began}"


def preempted(run: Training, rng: random.Random) -> str:
    """SIGTERM to one process: all save the same step, and the launcher starts them again."""
    run.start(restarts=1).wait_until(lambda: run.saved > 0, "a first checkpoint")
    time.sleep(rng.uniform(0.0, 0.5))
    index = rng.randrange(2)
    run.send(signal.SIGTERM, index)
    code = run.end()
    require(code == 0, f"exit code {code}, expected 0 after the restart")
    require(f"exit code {PREEMPTED}: restart 1" in run.output, f"no exit with {PREEMPTED}")
    return f"process {index} was asked; both saved and went on from {run.began_at()}"


def interrupted(run: Training, rng: random.Random) -> str:
    """Ctrl-C at the launcher saves once and ends with 130."""
    run.start().wait_until(lambda: run.saved > 0, "a first checkpoint")
    time.sleep(rng.uniform(0.0, 0.5))
    before = run.saved
    run.interrupt()
    code = run.end()
    require(code == INTERRUPTED, f"exit code {code}, expected {INTERRUPTED}")
    saved = run.saved
    require(saved >= before, "a checkpoint was lost")
    began = run.go_on()
    require(began == saved, f"went on from step {began}, expected {saved}")
    return f"saved at step {saved} and went on from there"


def truncated(run: Training, rng: random.Random) -> str:
    """The newest checkpoint's largest file is cut in half."""

    def cut(content: bytes) -> bytes:
        return content[: len(content) // 2]

    return _damaged(run, cut)


def flipped(run: Training, rng: random.Random) -> str:
    """One bit of the newest checkpoint's largest file is flipped."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return _damaged(run, flip)


def _damaged(run: Training, damage) -> str:
    run.start().wait_until(lambda: run.saved >= run.steps // 3, "a few checkpoints")
    run.kill_one(0)
    newest = run.saved
    path = run.largest_file(newest)
    path.write_bytes(damage(path.read_bytes()))
    began = run.go_on()
    said = re.search(rf"checkpoint of step {newest} is damaged \((.{{0,60}})", run.output)
    require(said, "nothing says that a checkpoint is damaged")
    require(0 < began < newest, f"went on from {began}, expected a checkpoint before {newest}")
    return f"step {newest} ({said[1].split(':')[0]}); went on from {began}"


def disk_full(run: Training, rng: random.Random) -> str:
    """The disk of the checkpoints is full: the run fails, the last good one stays."""
    with _small_disk(run) as (how, fill, empty):
        run.start().wait_until(lambda: run.saved > 0, "a first checkpoint")
        fill()
        code = run.end()
        require(code == FAILED, f"exit code {code}, expected {FAILED}")
        said = re.search(r"checkpoint of step \d+ could not be written.*", run.output)
        require(said, "nothing says that a checkpoint could not be written")
        left = run.saved
        require(f"the last good one is step {left}" in said[0], f"said: {said[0]}")
        empty()
        began = run.go_on()
        require(began == left, f"went on from step {began}, expected {left}")
    return f"{how}; failed after step {left} with a message, went on from there"


@contextlib.contextmanager
def _small_disk(run: Training) -> Iterator[tuple]:
    """Yield what it is and what fills and empties it: a tmpfs, or else a limit of file size."""
    run.checkpoints.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "drill", str(run.checkpoints)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        filler = run.checkpoints / "filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

        try:
            yield "a tmpfs of 16 MB", fill, filler.unlink
        finally:
            kept = shutil.copytree(run.checkpoints, run.workdir / "kept")
            subprocess.run(["umount", str(run.checkpoints)], check=True)
            run.checkpoints.rmdir()
            kept.rename(run.checkpoints)
        return

    def limit() -> None:
        for pid in run.pids():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, 1024))

    yield "no mounting here: a limit of file size", limit, lambda: None


def half_the_devices(run: Training, rng: random.Random) -> str:
    """Two processes of two devices stop; one process of two devices goes on."""
    run.start().wait_until(lambda: run.saved > 0, "a first checkpoint")
    time.sleep(rng.uniform(0.0, 0.5))
    run.send(signal.SIGTERM, 1)
    code = run.end()
    require(code == PREEMPTED, f"exit code {code}, expected {PREEMPTED}")
    began = run.go_on(mesh="fsdp=2", count=1)
    return f"went on from step {began} with one process"


def late(run: Training, rng: random.Random) -> str:
    """One process stands still for longer than a collective waits: in the start, in compiling."""
    run.start()
    told = []
    for line in ("clips train=", "parameters="):
        run.wait_until(lambda said=line: said in run.output, f"the line with {line}")
        pid = run.pids()[index := rng.randrange(2)]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(_STANDSTILL)
        with contextlib.suppress(ProcessLookupError):  # the launcher ended it, as the other failed
            os.kill(pid, signal.SIGCONT)
        told.append(f"process {index}")
    code = run.end()
    require(code == 0, f"exit code {code} after standing still; see {run.log}")
    return f"{' and then '.join(told)} stood still for {_STANDSTILL} s"


def everything(run: Training, rng: random.Random) -> str:
    """One run meets SIGTERM, SIGKILL in a save and a damaged file, one after the other."""
    run.start(restarts=1).wait_until(lambda: run.saved > 0, "a first checkpoint")
    run.send(signal.SIGTERM, 1)
    restarted = f"exit code {PREEMPTED}: restart 1"
    run.wait_until(lambda: restarted in run.output, "the restart")
    stopped_at = run.saved
    run.wait_until(lambda: run.saved > stopped_at and run.unfinished, "a save after the restart")
    run.kill_one(0)
    newest = run.saved
    path = run.largest_file(newest)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    began = run.go_on()
    require(f"checkpoint of step {newest} is damaged" in run.output, "no word about the damage")
    require(stopped_at <= began < newest, f"went on from {began}, not before {newest}")
    return f"SIGTERM at {stopped_at}, SIGKILL and damage at {newest}, went on from {began}"


def same_bits(run: Training, whole: Training) -> str:
    """Compare the end of a run with that of an undisturbed one: all of the state, bit for bit."""
    mine, other = run.parameters(), whole.parameters()
    wrong = [name for name in other if mine[name].tobytes() != other[name].tobytes()]
    require(not wrong, f"other bits in {wrong[:3]}")
    require(run.state() == whole.state(), "the optimizer's state has other bits")
    return "same bits"


def nearly_the_same(run: Training, whole: Training) -> str:
    """Compare parameters that another mesh has rounded otherwise."""
    mine, other = (np.concatenate([np.ravel(v) for _, v in sorted(r.parameters().items())])
                   for r in (run, whole))  # fmt: skip
    apart = float(np.linalg.norm(mine - other) / np.linalg.norm(other))
    require(apart <= 1e-5, f"parameters are {apart:.2g} apart, expected 1e-5")
    return f"{apart:.1g} apart"


# name -> (what happens, how the end is compared with that of the undisturbed run)
ALL = {
    "killed": (killed, same_bits),
    "killed in a save": (killed_in_a_save, same_bits),
    "preempted": (preempted, same_bits),
    "interrupted": (interrupted, same_bits),
    "truncated": (truncated, same_bits),
    "flipped bit": (flipped, same_bits),
    "disk full": (disk_full, same_bits),
    "late": (late, same_bits),
    "half the devices": (half_the_devices, nearly_the_same),
}
QUICK = {"everything": (everything, same_bits)}
