"""The plan of a run on a target: what fits, what binds it, and what it says about itself.

Conventions: the bound on a step's time is the largest of four: operations at the chip's peak, the
bytes that must pass through its memory, and those it must send, each as if the others cost nothing.
Utilisation counts the operations of the model alone, not what is computed again. Bounds are not
predictions: a real step is slower. Devices whose peak is not known have none: nothing is made up.

Read next: `steps.py`, `mirage_jax/cli/plan.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mirage_jax.distributed.targets import Target
from mirage_jax.estimate import size_text
from mirage_jax.plan.steps import Compiled


@dataclasses.dataclass(frozen=True)
class Load:
    """What a program asks of all devices together.

    Attributes:
        model: operations of the model.
        executed: operations with what is computed again.
        weight_bytes: bytes of weights and moments that each device reads and writes at least.
    """

    model: float
    executed: float
    weight_bytes: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """A program on a target.

    Attributes:
        what: name of the program.
        target: devices.
        mesh: sizes of its axes.
        batch: clips of a run of it.
        load: operations and bytes.
        compiled: what the compiled program needs; None where it was not compiled.
        estimated_bytes: of a device, from the config alone.
        failed: why compiling failed, e.g. for lack of memory; "" otherwise.
        hint: the nearest mesh that is estimated to fit, where this one does not.
    """

    what: str
    target: Target
    mesh: dict[str, int]
    batch: int
    load: Load
    compiled: Compiled | None
    estimated_bytes: dict[str, float]
    failed: str = ""
    hint: str = ""

    @property
    def bytes_per_device(self) -> float:
        """Bytes that a device needs: of the compiled program, else estimated."""
        return self.compiled.bytes if self.compiled else sum(self.estimated_bytes.values())

    @property
    def fits(self) -> bool:
        """Whether that is no more than a device has."""
        return not self.failed and self.bytes_per_device <= self.target.chip.memory

    def seconds(self) -> dict[str, float]:
        """Return what each resource, of known rate, needs at least for one run of the program."""
        compiled = self.compiled
        sent = sum(t.sent for t in compiled.collectives.values()) if compiled else None
        asked = {
            "operations": (self.load.executed / self.target.devices, self.target.chip.flops),
            "memory": (self.load.weight_bytes, self.target.chip.memory_rate),
            "links": (sent, self.target.chip.link_rate),
        }
        return {
            name: amount / rate
            for name, (amount, rate) in asked.items()
            if rate is not None and amount is not None
        }

    @property
    def step_seconds_bound(self) -> float | None:
        """The largest of them; None where the devices' peak is not known."""
        return None if self.target.chip.flops is None else max(self.seconds().values())

    @property
    def mfu_bound(self) -> float | None:
        """The model's share of the operations that the devices could do in that time."""
        seconds, flops = self.step_seconds_bound, self.target.chip.flops
        if seconds is None or flops is None:
            return None
        return self.load.model / (seconds * self.target.devices * flops)

    def remembering(self) -> dict[str, float]:
        """Return the share of operations and bytes that the latent memory takes, at most."""
        if not self.compiled or not self.compiled.accessed:
            return {}
        part = self.compiled.remembering
        return {
            "operations": part.operations / (self.load.executed / self.target.devices),
            "bytes": part.bytes / self.compiled.accessed,
        }

    def values(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        compiled = self.compiled
        collectives = compiled.collectives if compiled else {}
        sizes = compiled.held | {"temporary": compiled.temporary} if compiled else {}
        return {
            "what": self.what,
            "target": self.target.name,
            "device": self.target.kind,
            "devices": self.target.devices,
            "mesh": self.mesh,
            "batch": self.batch,
            "compiled": compiled is not None,
            "fits": self.fits,
            "bytes_per_device": self.bytes_per_device,
            "memory": self.target.chip.memory,
            "bytes": sizes or self.estimated_bytes,
            "step_seconds_bound": self.step_seconds_bound,
            "seconds": self.seconds(),
            "mfu_bound": self.mfu_bound,
            "operations": {"model": self.load.model, "executed": self.load.executed},
            "bytes_accessed": compiled.accessed if compiled else None,
            "latent_memory_share": self.remembering(),
            "collectives": {k: dataclasses.asdict(v) for k, v in collectives.items()},
            "temporaries": dict(compiled.temporaries) if compiled else {},
            "left_whole": compiled.left_whole if compiled else [],
            "compile_seconds": compiled.seconds if compiled else None,
            "failed": self.failed,
            "nearest_mesh_that_fits": self.hint,
        }

    def text(self) -> str:
        """Render for people."""
        mesh = " ".join(f"{k}={v}" for k, v in self.mesh.items() if v > 1) or "one device"
        how = f"compiled in {self.compiled.seconds:.0f} s" if self.compiled else "estimated"
        lines = [
            f"{self.what} on {self.target.label}: {mesh}, batch {self.batch}, {how}",
            *self._byte_lines(),
        ]
        lines += [f"  left whole: {line}" for line in (self.compiled or _NOTHING).left_whole]
        for kind, traffic in (self.compiled or _NOTHING).collectives.items():
            lines.append(
                f"  {size_text(traffic.sent):>10}  sent by {traffic.count} {kind} of "
                f"{size_text(traffic.bytes)}"
            )
        if share := self.remembering():
            accessed = size_text(self.compiled.accessed if self.compiled else 0)
            lines.append(
                f"  {accessed:>10}  read and written a device; of that the latent memory at most "
                f"{share['bytes']:.2%}, of operations {share['operations']:.2%}"
            )
        lines.append(f"  {self.load.model:.3g} operations, {self._bound_text()}")
        return "\n".join(lines)

    def _bound_text(self) -> str:
        """Say what is executed, how long it takes at least, and what binds it."""
        executed = f"{self.load.executed:.3g} executed"
        if self.step_seconds_bound is None or self.mfu_bound is None:
            kind = self.target.kind
            return f"{executed}; time and utilisation unknown, as is the peak of {kind!r} devices"
        bounds = ", ".join(f"{name} {value:.3f}" for name, value in self.seconds().items())
        return (
            f"{executed}; at least {self.step_seconds_bound:.3f} s ({bounds}), utilisation at most "
            f"{self.mfu_bound:.0%}"
        )

    def _byte_lines(self) -> list[str]:
        compiled, has = self.compiled, self.target.chip.memory
        sizes: dict[str, float] = dict(self.estimated_bytes)
        if compiled:
            sizes = {**compiled.held, "activations and other temporaries": compiled.temporary}
        lines = [f"  {size_text(size):>10}  {name}" for name, size in sizes.items() if size]
        if compiled and compiled.temporaries:
            parts = (f"{name} {size_text(size)}" for name, size in compiled.temporaries.items())
            lines.append(f"{'':12}  one after the other: {', '.join(parts)}")
        verdict = "fits" if self.fits else "does NOT fit"
        lines.append(
            f"  {size_text(self.bytes_per_device):>10}  a device, {verdict} its "
            f"{size_text(has)}{self.target.memory_note}"
        )
        if self.failed:
            lines.append(f"  compiling failed: {self.failed}")
        if self.hint:
            lines.append(f"  nearest mesh that is estimated to fit: {self.hint}")
        return lines


_NOTHING = Compiled({}, 0, {}, 0.0, [])
