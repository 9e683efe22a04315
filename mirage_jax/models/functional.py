"""The one adapter between NNX modules and pure functions of plain parameter dicts.

Conventions: a model is named by a frozen, hashable config dataclass whose `build(rngs)` returns an
`nnx.Module` that holds only `nnx.Param` variables. Parameters are nested dicts keyed by strings;
a `Param` may carry the metadata `axes`, a tuple with one logical axis name (or None) a dimension.
Only this file splits, merges or reads metadata, hence `jax.jit`, `jax.grad` and `jax.lax.scan`
apply to the functions below without any NNX transform.

Read next: `layers.py` for the building blocks, `files.py` for saving what `init` returns.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import jax
from flax import nnx

from mirage_jax.models.attention import ATTENDED

Params = dict[str, Any]
Path = tuple[str, ...]


class ModelConfig(Hashable, Protocol):
    """What `init` and `apply` need of a config: a frozen dataclass that builds its module."""

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the module with freshly drawn parameters."""
        ...


@dataclasses.dataclass(frozen=True)
class _Skeleton:
    """A module without its values: structure, abstract leaves and logical axes by path."""

    graphdef: Any
    keys: Mapping[Path, tuple[Any, ...]]
    leaves: Mapping[Path, jax.ShapeDtypeStruct]
    axes: Mapping[Path, tuple[str | None, ...]]


def init(config: ModelConfig, key: jax.Array | int) -> Params:
    """Draw parameters for `config`.

    Args:
      config: a frozen model config.
      key: a JAX key, or an integer seed.

    Returns:
      A nested dict of arrays with the structure of `abstract_params(config)`.
    """
    key = jax.random.key(key) if isinstance(key, int) else key

    def draw(key: jax.Array) -> Params:
        state = nnx.state(config.build(nnx.Rngs(params=key)))
        return unflatten({_names(path): leaf[...] for path, leaf in nnx.to_flat_state(state)})

    if isinstance(key, jax.core.Tracer) or jax.default_backend() != "cpu":
        return draw(key)
    # One quick compilation: on CPUs optimising each drawing operation takes far longer than running
    # it (measured on a tiny denoiser: 13 s one by one, 31 s as a whole, 4 s unoptimised).
    return jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})(key)


def abstract_params(config: ModelConfig) -> Params:
    """Return shapes and dtypes of the parameters of `config` without allocating any of them."""
    return unflatten(_skeleton(config).leaves)


def logical_axes(config: ModelConfig) -> Params:
    """Return, for each parameter, a tuple with one logical axis name or None a dimension.

    The names are those of the axis table in `distributed/`; a parameter declared without axes is
    all None.
    """
    return unflatten(_skeleton(config).axes)


def apply(
    config: ModelConfig, params: Params, *args: Any, method: str = "__call__", **kwargs: Any
) -> Any:
    """Call a method of the model of `config` with the parameters `params`.

    Pure: may be traced, differentiated with respect to `params`, vmapped and scanned. Dtypes of
    `params` are free (bfloat16 weights are accepted), structure and shapes are not.

    Args:
      config: the frozen config that `params` was made from.
      params: nested dict of arrays as `init` returns it.
      *args: positional arguments of the method.
      method: name of the method to call.
      **kwargs: keyword arguments of the method.

    Raises:
      ValueError: if names or shapes in `params` differ from those of the config.
    """
    skeleton = _skeleton(config)
    flat = flatten(params)
    check_against(skeleton.leaves, flat, what=f"params of {type(config).__name__}")
    state = _nest({skeleton.keys[path]: value for path, value in flat.items()})
    module = nnx.merge(skeleton.graphdef, nnx.State(state))
    return getattr(module, method)(*args, **kwargs)


def count_params(params: Params) -> int:
    """Return the number of scalars in a tree of arrays or of abstract arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def flatten(params: Params) -> dict[Path, Any]:
    """Return the leaves of a nested dict by path, in sorted order of the paths."""
    flat: dict[Path, Any] = {}

    def visit(node: Any, path: Path) -> None:
        if isinstance(node, Mapping):
            for name in node:
                visit(node[name], (*path, str(name)))
        else:
            flat[path] = node

    visit(params, ())
    return dict(sorted(flat.items()))


def unflatten(flat: Mapping[Path, Any]) -> Params:
    """Inverse of `flatten`."""
    return _nest(flat)


def check_against(expected: Mapping[Path, Any], got: Mapping[Path, Any], *, what: str) -> None:
    """Raise unless two flat trees have the same paths and the same shapes.

    Args:
      expected: path -> anything with `.shape`.
      got: path -> anything with `.shape`.
      what: begins the error message, e.g. a file name.

    Raises:
      ValueError: listing missing, unexpected and misshapen parameters by name.
    """
    missing = ["/".join(path) for path in expected if path not in got]
    unexpected = ["/".join(path) for path in got if path not in expected]
    misshapen = [
        f"{'/'.join(path)}: got {tuple(got[path].shape)}, expected {tuple(leaf.shape)}"
        for path, leaf in expected.items()
        if path in got and tuple(got[path].shape) != tuple(leaf.shape)
    ]
    problems = [
        f"{title} ({len(names)}): {_shortened(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"{what} do not fit the model: {'; '.join(problems)}. "
            "Use the config that the parameters were made with."
        )


def stack_layers(
    build: Callable[[nnx.Rngs], nnx.Module], layers: int, *, rngs: nnx.Rngs
) -> nnx.Module:
    """Return one module whose parameters are those of `layers` independent modules, stacked.

    Every parameter gets a leading axis, called `layers`. The result is a container to be run by
    `scan_layers`; its own `__call__` means nothing.
    """
    graphdef, template = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(params=0))))
    keys = jax.random.split(rngs.params(), layers)
    drawn = jax.vmap(lambda key: nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key)))))(keys)
    stacked = nnx.merge(graphdef, nnx.State(drawn))
    axes = {path: leaf.get_metadata().get("axes") for path, leaf in nnx.to_flat_state(template)}
    for path, variable in nnx.to_flat_state(nnx.state(stacked)):
        unstacked = axes[path] or (None,) * (variable.get_value().ndim - 1)
        variable.set_metadata(axes=("layers", *unstacked))
    return stacked


def scan_layers(
    stacked: nnx.Module,
    step: Callable[[nnx.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    *,
    remat: str = "none",
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Run `step(layer, carry, x) -> (carry, y)` over stacked layers with `jax.lax.scan`.

    Args:
      stacked: a module from `stack_layers`.
      step: gets one layer's module, the carry and that layer's slice of `xs`.
      carry: pytree handed from layer to layer.
      xs: pytree with a leading axis of one entry a layer, or None.
      remat: a key of `REMAT`: what the backward pass recomputes.
      unroll: how many layers one iteration of the loop runs.

    Returns:
      The last carry and the stacked `y`s.
    """
    graphdef, state = nnx.split(stacked)

    def body(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        layer_state, x = inputs
        return step(nnx.merge(graphdef, nnx.State(layer_state)), carry, x)

    inputs = (nnx.to_pure_dict(state), xs)
    return jax.lax.scan(REMAT[remat](body), carry, inputs, unroll=unroll)


# What the backward pass keeps: everything, the outputs of weight products and of attention, or only
# each layer's input. `prevent_cse=False` is safe inside a scan and lets XLA optimise across the
# boundary.
REMAT: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "none": lambda body: body,
    "dots": functools.partial(
        jax.checkpoint,
        prevent_cse=False,
        policy=jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            jax.checkpoint_policies.save_only_these_names(ATTENDED),
        ),
    ),
    "full": functools.partial(jax.checkpoint, prevent_cse=False),
}


@functools.lru_cache(maxsize=128)
def _skeleton(config: ModelConfig) -> _Skeleton:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: config.build(nnx.Rngs(params=0))))
    keys, leaves, axes = {}, {}, {}
    for path, variable in nnx.to_flat_state(state):
        names = _names(path)
        if type(variable) is not nnx.Param:
            raise TypeError(
                f"{type(config).__name__}.build: {'/'.join(names)} is a "
                f"{type(variable).__name__}, expected nnx.Param only; move constants to the "
                "config and random keys to arguments"
            )
        value = variable.get_value()
        keys[names] = path
        leaves[names] = jax.ShapeDtypeStruct(value.shape, value.dtype)
        axes[names] = _checked_axes(names, variable.get_metadata().get("axes"), value.ndim)
    return _Skeleton(graphdef, keys, leaves, axes)


def _checked_axes(names: Path, axes: Any, ndim: int) -> tuple[str | None, ...]:
    axes = (None,) * ndim if axes is None else tuple(axes)
    if len(axes) != ndim:
        raise ValueError(
            f"logical axes of {'/'.join(names)}: got {axes}, expected one entry for each of its "
            f"{ndim} dimensions; write None for a dimension that is never sharded"
        )
    return axes


def _names(path: tuple[Any, ...]) -> Path:
    return tuple(str(part) for part in path)


def _nest(flat: Mapping[tuple[Any, ...], Any]) -> dict[Any, Any]:
    tree: dict[Any, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def _shortened(names: list[str], limit: int = 8) -> str:
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
