"""What one latent memory over all devices of a target asks of each of them.

Write and read are those of `memory/sharded.py`, compiled ahead of time without any array being
made. What is said is read off the compiled programs: bytes, collectives, the kernels' share of
vector memory, and whether anything is scattered or sorted.

Read next: `mirage_jax/memory/sharded.py`, `mirage_jax/cli/plan.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.collectives import Traffic, added, read_collectives
from mirage_jax.distributed.targets import Target
from mirage_jax.estimate import size_text
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import sharded, state
from mirage_jax.memory.config import MOST_PARTITION_ROWS
from mirage_jax.memory.merge import Rows
from mirage_jax.plan.steps import bytes_beside_arguments
from mirage_jax.train.placement import placed_like

_AXIS = "memory"
_OPERATION = re.compile(
    r"^\s*(?:ROOT )?%(\S+) = (\([^=]*?\)|\S+) ([a-z][a-z0-9-]*)\(", re.MULTILINE
)
_EXTENTS = re.compile(r"\b(\w+)\[([\d,]*)\]")
_GPU_KERNEL = re.compile(r'gpu\.triton".* name = "(\w+)"')
_KERNEL_BYTES = re.compile(
    r'"used_scoped_memory_configs":\[\{"memory_space":"1","offset":"\d+","size":"(\d+)"'
)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a write brings and a read asks for.

    Attributes:
        frames: latent frames written at once.
        views: cameras read at once.
        grid_hw: cells of a frame.
    """

    frames: int = 9
    views: int = 9
    grid_hw: tuple[int, int] = (44, 80)

    @property
    def new_rows(self) -> int:
        """Rows of a write."""
        return self.frames * math.prod(self.grid_hw)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled write or read, as one device has it.

    Attributes:
        held: bytes of its arguments as they lie in memory, padded to tiles.
        temporary: bytes of everything else while it runs.
        collectives: kind -> traffic.
        scatters: shapes that are scattered into.
        sorts: shapes that are sorted.
        kernels: name -> bytes of vector memory that a kernel holds; 0 on GPUs, which have none.
        seconds: what compiling took.
    """

    held: int
    temporary: int
    collectives: dict[str, Traffic]
    scatters: list[str]
    sorts: list[str]
    kernels: dict[str, int]
    seconds: float

    def beyond(self, rows: int) -> list[str]:
        """Return the shapes scattered into or sorted that have more elements than `rows`."""
        return [shape for shape in self.scatters + self.sorts if _elements(shape) > rows]


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """A memory spread over a target.

    Attributes:
        target: devices.
        config: rules and sizes.
        work: what is written and read.
        tables: bytes of a device by table, unpadded.
        programs: "write" and "read"; empty where nothing was compiled.
    """

    target: Target
    config: state.MemoryConfig
    work: Work
    tables: dict[str, int]
    programs: dict[str, Program]

    @property
    def bytes_per_device(self) -> int:
        """Bytes of the larger program with all it holds, else of the tables."""
        sizes = [program.held + program.temporary for program in self.programs.values()]
        return max(sizes, default=sum(self.tables.values()))

    @property
    def fits(self) -> bool:
        """Whether that is no more than a device has."""
        return self.bytes_per_device <= self.target.chip.memory

    def collectives(self) -> dict[str, Traffic]:
        """Return the traffic of one write and one read, by kind."""
        return added([(program.collectives, 1) for program in self.programs.values()])

    @property
    def step_seconds_bound(self) -> float | None:
        """What one write and one read send takes at least; None where that is not known.

        Bytes that pass through a device's memory are not in it: they depend on what is seen.
        """
        rate = self.target.chip.link_rate
        if rate is None or not self.programs:
            return None
        return sum(traffic.sent for traffic in self.collectives().values()) / rate

    @property
    def nearest(self) -> int:
        """How many such devices it is estimated to fit on: these, or twice, four times ... them."""
        devices, size = self.target.devices, float(self.bytes_per_device)
        while size > self.target.chip.memory:
            devices, size = 2 * devices, size / 2
        return devices

    def values(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        rows = self.config.rows * self.config.partitions
        limit = 2 * self.work.new_rows
        return {
            "what": "memory",
            "target": self.target.name,
            "device": self.target.kind,
            "devices": self.target.devices,
            "compiled": bool(self.programs),
            "rows": rows,
            "rows_per_device": rows // self.target.devices,
            "token_dtype": self.config.token_dtype,
            "work": dataclasses.asdict(self.work),
            "fits": self.fits,
            "nearest_devices_that_fit": self.nearest,
            "bytes_per_device": self.bytes_per_device,
            "memory": self.target.chip.memory,
            "bytes": self.tables,
            "step_seconds_bound": self.step_seconds_bound,
            "mfu_bound": None,  # there are no products
            "collectives": {k: dataclasses.asdict(v) for k, v in self.collectives().items()},
            "programs": {
                name: dataclasses.asdict(program) | {"over_stored_rows": program.beyond(limit)}
                for name, program in self.programs.items()
            },
        }

    def text(self) -> str:
        """Render for people."""
        rows = self.config.rows * self.config.partitions
        lines = [
            f"memory of {rows:.3g} rows ({self.config.token_dtype} tokens of "
            f"{self.config.channels}) on {self.target.label}: {rows // self.target.devices} rows a "
            "device",
        ]
        lines += [f"  {size_text(size):>10}  {name}" for name, size in self.tables.items() if size]
        for name, program in self.programs.items():
            lines += self._program_lines(name, program)
        verdict = "fits" if self.fits else "does NOT fit"
        has = size_text(self.target.chip.memory) + self.target.memory_note
        lines.append(f"  {size_text(self.bytes_per_device):>10}  a device, {verdict} its {has}")
        if not self.fits:
            lines.append(f"  estimated to fit on {self.nearest} devices")
        return "\n".join(lines)

    def _program_lines(self, name: str, program: Program) -> list[str]:
        amount = f"{self.work.new_rows} rows" if name == "write" else f"{self.work.views} views"
        lines = [
            f"  {name} of {amount}, compiled in {program.seconds:.0f} s: "
            f"{size_text(program.temporary)} beside {size_text(program.held)} of arguments"
        ]
        for kind, traffic in program.collectives.items():
            lines.append(
                f"    {size_text(traffic.sent):>10}  sent by {traffic.count} {kind} of "
                f"{size_text(traffic.bytes)}"
            )
        for kernel, size in program.kernels.items():
            held = f"{size_text(size):>10}  of vector memory in" if size else " " * 10 + "  with"
            lines.append(f"    {held} kernel {kernel}")
        for what, shapes in (("scattered into", program.scatters), ("sorted", program.sorts)):
            lines.append(f"    {what}: {', '.join(shapes) or 'nothing'}")
        return lines


def plan_memory(
    rows: int, target: Target, devices: Sequence[Any] | None, work: Work | None = None
) -> MemoryPlan:
    """Plan a memory of at least `rows` rows in bfloat16, its space divided among all devices.

    Args:
        rows: that it can hold.
        target: what it is to lie on.
        devices: from `compile_only_devices`; None plans without compiling.
        work: what is written and read at once.
    """
    work = work or Work()
    config = state.MemoryConfig(
        capacity=rows,
        channels=48,
        retention="newest",
        # No more rows in a partition than a directory can number.
        partitions=target.devices * -(-rows // (target.devices * (MOST_PARTITION_ROWS >> 1))),
        token_dtype="bfloat16",
    )
    memory = jax.eval_shape(lambda: state.empty(config))
    tables = {
        name: table.size * table.dtype.itemsize // target.devices
        for name, table in memory._asdict().items()
        if table.ndim > 1
    }
    programs = compile_memory(config, work, devices) if devices else {}
    return MemoryPlan(target, config, work, tables, programs)


def compile_memory(
    config: state.MemoryConfig, work: Work, devices: Sequence[Any]
) -> dict[str, Program]:
    """Compile a write and a read of a memory that is divided among devices.

    Args:
        config: rules; its partitions are a multiple of the devices.
        work: what is written and read at once.
        devices: to compile for.
    """
    mesh = Mesh(mesh_utils.create_device_mesh((len(devices),), devices=list(devices)), (_AXIS,))
    placement = sharded.Placement(mesh, (_AXIS,))
    memory = jax.eval_shape(lambda: state.empty(config))
    memory = placed_like(memory, placement.shardings())
    write = functools.partial(sharded.write, config=config, placement=placement)
    read = functools.partial(sharded.read, grid_hw=work.grid_hw, config=config, placement=placement)
    cameras = Camera(
        jax.ShapeDtypeStruct((work.views, 4, 4), jnp.float32),
        jax.ShapeDtypeStruct((work.views, 3, 3), jnp.float32),
    )
    whole, divided = NamedSharding(mesh, P()), NamedSharding(mesh, P(_AXIS))
    count = -(-work.new_rows // len(devices)) * len(devices)  # each device brings as many
    rows, cameras = (
        placed_like(tree, jax.tree.map(lambda _, s=sharding: s, tree))
        for tree, sharding in ((_new_rows(config, count), divided), (cameras, whole))
    )
    return {
        "write": _compile(mesh, jax.jit(write, donate_argnums=0), memory, rows),
        "read": _compile(mesh, jax.jit(read), memory, cameras),
    }


def _new_rows(config: state.MemoryConfig, m: int) -> Rows:
    """Return shapes and types of the m rows of a write."""
    return jax.eval_shape(
        lambda: Rows(
            positions=jnp.zeros((m, 3)),
            tokens=jnp.zeros((m, config.channels)),
            origin=jnp.zeros((m, 3)),
            depth=jnp.zeros((m,)),
            time=jnp.zeros((m,), jnp.int32),
            keep=jnp.zeros((m,), bool),
        )
    )


def _compile(mesh: Mesh, jitted: Any, *arguments: Any) -> Program:
    since = time.monotonic()
    with jax.set_mesh(mesh):  # also chooses the kernels of the target
        compiled = jitted.lower(*arguments).compile()
    seconds, text = time.monotonic() - since, compiled.as_text()
    operations = [match.groups() for match in _OPERATION.finditer(text)]
    shapes = {
        kind: [_first_shape(shape) for _, shape, name in operations if name == kind]
        for kind in ("scatter", "sort")
    }
    return Program(
        held=int(compiled.memory_analysis().argument_size_in_bytes),
        temporary=bytes_beside_arguments(compiled),
        collectives=read_collectives(text, mesh.size),
        scatters=shapes["scatter"],
        sorts=shapes["sort"],
        kernels=_kernels(text),
        seconds=seconds,
    )


def _kernels(text: str) -> dict[str, int]:
    """Return the kernels of a program and the vector memory that each holds on a TPU."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        named, used = _OPERATION.match(line), _KERNEL_BYTES.search(line)
        if named and used and '"tpu_custom_call"' in line:
            name = named[1].split(".")[0]
            found[name] = max(found.get(name, 0), int(used[1]))
        elif on_gpu := _GPU_KERNEL.search(line):
            found[on_gpu[1]] = 0
    return found


def _first_shape(text: str) -> str:
    """Return the first shape of an operation's result, without its layout."""
    kind, extents = _EXTENTS.search(text).groups()  # type: ignore[union-attr]
    return f"{kind}[{extents}]"


def _elements(shape: str) -> int:
    extents = shape.partition("[")[2].rstrip("]")
    return math.prod(int(part) for part in extents.split(",") if part)
