"""Where the arrays of a stage of training lie on the mesh: its state, what it holds fixed, batches.

Conventions: parameters lie as the table of logical axes says; moments and average as the parameters
they belong to; everything else of the state, and arrays of a batch without rows, are whole on every
device. Nothing is ever whole on one device that is to be divided. Read next:
`mirage_jax/distributed/axes.py`, `mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.axes import AnyMesh, left_whole, shardings_for, spec_for
from mirage_jax.models.functional import flatten
from mirage_jax.train.state import TrainState, new_state


@dataclasses.dataclass(frozen=True)
class Placement:
    """The mesh of a run and what lies where on it.

    Attributes:
        mesh: of all devices of the run.
        whole_below: arrays of fewer scalars are not divided.
    """

    mesh: AnyMesh
    whole_below: int = 0

    @property
    def whole(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, P())

    def parameters(self, axes: Any, shapes: Any) -> Any:
        """Return the shardings of a nested dict of parameters."""
        return shardings_for(axes, shapes, self.mesh, whole_below=self.whole_below)

    def state(self, axes: Any, shapes: TrainState) -> Any:
        """Return the shardings of a train state of abstract arrays, as a `TrainState` of them."""
        params = self.parameters(axes, shapes.params)
        opt_state = beside_parameters(shapes.opt_state, shapes.params, params, self.whole)
        ema = params if shapes.ema else {}
        return TrainState._make((self.whole, params, opt_state, ema))

    def batch(
        self, arrays: Mapping[str, Any], rows: int, shared: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the shardings of a batch: its rows are divided along `data` and `fsdp`.

        Args:
            arrays: of a step, by name.
            rows: of the batch.
            shared: names of arrays without rows.

        Raises:
            ValueError: if the devices do not divide the rows.
        """
        shardings = {}
        for name, array in arrays.items():
            names = ("batch" if name not in shared else None, *(None for _ in array.shape[1:]))
            if name not in shared and array.shape[0] != rows:
                raise ValueError(
                    f"batch[{name!r}]: got {array.shape[0]} rows, expected {rows}; name arrays "
                    "without rows in the objective's shared"
                )
            spec = spec_for(names, array.shape, self.mesh, f"batch[{name!r}]")
            shardings[name] = NamedSharding(self.mesh, spec)
        return shardings

    def put(self, tree: Any, shardings: Any) -> Any:
        """Place arrays of the host, the same in every process; a device gets its part alone."""

        def one(array: Any, sharding: NamedSharding) -> jax.Array:
            array = np.asarray(array)
            return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

        return jax.tree.map(one, tree, shardings)

    def own_rows(self, rows: int) -> np.ndarray:
        """Return which rows of a batch of so many this process's devices hold, in order.

        Raises:
            ValueError: if the devices do not divide the rows.
        """
        held = self._rows(rows).addressable_devices_indices_map((rows,)).values()
        return np.unique(np.concatenate([np.arange(rows)[part] for part in held]))

    def put_batch(
        self, arrays: Mapping[str, np.ndarray], rows: int, shared: Iterable[str] = ()
    ) -> dict[str, jax.Array]:
        """Place a batch of which the arrays have the rows that `own_rows` names.

        Args:
            arrays: of a step, by name.
            rows: of the whole batch.
            shared: names of arrays without rows, the same in every process.

        Returns:
            Global arrays; see `batch` for where they lie.

        Raises:
            ValueError: for other rows than those.
        """
        own = self.own_rows(rows)
        whole: dict[str, Any] = dict(arrays)
        for name in arrays.keys() - set(shared):
            if len(arrays[name]) != len(own):
                raise ValueError(
                    f"batch[{name!r}]: got {len(arrays[name])} rows, expected {len(own)}, those of "
                    f"{rows} that this process holds; name arrays without rows in the objective's "
                    "shared"
                )
            shape = (rows, *arrays[name].shape[1:])
            whole[name] = jax.ShapeDtypeStruct(shape, arrays[name].dtype)
        shardings = self.batch(whole, rows, shared)
        return {
            name: _spread(
                array, whole[name].shape, shardings[name], None if name in shared else own
            )
            for name, array in arrays.items()
        }

    def _rows(self, rows: int) -> NamedSharding:
        return NamedSharding(self.mesh, spec_for(("batch",), (rows,), self.mesh, "batch"))

    def report(self, state: TrainState) -> list[str]:
        """Name the large parameters, moments and averages that were left whole."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        return [f"not divided: {line}" for line in left_whole(state._asdict(), shardings)]


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, *, average: bool
) -> TrainState:
    """Return shapes and types of the state at step 0."""
    return jax.eval_shape(lambda p: new_state(p, optimizer, average=average), params)


def placed_like(shapes: Any, shardings: Any) -> Any:
    """Return abstract arrays that carry their shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def drawn(build: Callable[[], Any], shardings: Any) -> Any:
    """Run a function that draws arrays so that each device draws its own part of them."""
    cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if cpu else None  # see functional.init
    return jax.jit(build, out_shardings=shardings, compiler_options=options)()


def _spread(
    array: np.ndarray, shape: tuple[int, ...], sharding: NamedSharding, rows: np.ndarray | None
) -> jax.Array:
    """Return the global array of `shape` of which this process has `rows`; None: all of them."""
    places = sharding.addressable_devices_indices_map(shape)
    # Moved on purpose, device by device: the guard on transfers need not be lifted for it.
    parts = [
        jax.device_put(_part(array, rows, index or ()), device) for device, index in places.items()
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _part(array: np.ndarray, rows: np.ndarray | None, index: tuple[slice, ...]) -> np.ndarray:
    """Return a part of a global array of which only some rows are at hand; None: all of them."""
    if rows is None:
        return array[index]
    own = slice(*np.searchsorted(rows, index[0].indices(rows[-1] + 1)[:2]))
    return array[(own, *index[1:])]


def beside_parameters(tree: Any, params: Any, shardings: Any, otherwise: Any) -> Any:
    """Give each array of `tree` whose path ends in a parameter's, and its shape, that sharding.

    An array with one axis less, such as a factor of second moments, is divided along those it has.

    Args:
        tree: of abstract arrays, e.g. an optimizer's state.
        params: nested dict of abstract parameters.
        shardings: of the parameters.
        otherwise: sharding of the rest.
    """
    known = flatten(shardings)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        keys = tuple(str(getattr(part, "key", part)) for part in path)
        for start in range(len(keys)):
            owner = keys[start:]
            if owner not in shapes:
                continue
            shape, sharding = shapes[owner], known[owner]
            if shape == leaf.shape:
                return sharding
            if left := _less_one_axis(shape, leaf.shape):
                # Of the axes of a square matrix, rows keep the first and columns the last.
                gone = left[0] if "v_col" in keys else left[-1]
                entries = (*sharding.spec, *(None for _ in shape[len(sharding.spec) :]))
                return NamedSharding(sharding.mesh, P(*entries[:gone], *entries[gone + 1 :]))
        return otherwise

    return jax.tree_util.tree_map_with_path(one, tree)


def _less_one_axis(shape: tuple[int, ...], less: tuple[int, ...]) -> list[int]:
    """Return the axes of `shape` without which it is `less`."""
    return [i for i in range(len(shape)) if (*shape[:i], *shape[i + 1 :]) == less]
