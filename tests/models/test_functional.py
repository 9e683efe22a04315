"""The NNX adapter: plain dicts in and out, every transform plain JAX, mistakes named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mirage_jax.models import functional
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.depth_head import DepthHeadConfig
from mirage_jax.models.layers import Linear

# The logical axes that the mesh table knows.
AXES = {"batch", "frames", "tokens", "embed", "mlp", "heads", "head_dim", "layers", "memory"}
TINY = DenoiserConfig(
    latent_channels=4,
    out_channels=4,
    width=16,
    heads=2,
    layers=3,
    mlp_width=32,
    text_width=8,
    time_frequencies=8,
    branch_layers=(0, 2),
    condition_channels=5,
)


class Ladder(nnx.Module):
    def __init__(self, layers, rngs):
        self.rungs = functional.stack_layers(
            lambda rngs: Linear(3, 3, ("embed", "mlp"), rngs=rngs), layers, rngs=rngs
        )

    def __call__(self, x, remat="none", unroll=1):
        def step(rung, x, bonus):
            return jnp.tanh(rung(x)) + bonus, x

        bonus = jnp.arange(4.0)
        return functional.scan_layers(self.rungs, step, x, bonus, remat=remat, unroll=unroll)


@dataclasses.dataclass(frozen=True)
class LadderConfig:
    layers: int = 4

    def build(self, rngs):
        return Ladder(self.layers, rngs)


class Counting(nnx.Module):
    def __init__(self):
        self.count = nnx.Variable(jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class CountingConfig:
    def build(self, rngs):
        return Counting()


def test_init_has_the_structure_and_shapes_that_abstract_params_promises():
    params = functional.init(TINY, 0)
    abstract = functional.abstract_params(TINY)
    assert jax.tree.structure(params) == jax.tree.structure(abstract)
    assert all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(abstract), strict=True)
    )


def test_init_is_a_function_of_its_key_alone_also_under_jit():
    config = LadderConfig()
    once = functional.init(config, 3)["rungs"]["kernel"]
    traced = jax.jit(lambda key: functional.init(config, key))(jax.random.key(3))
    np.testing.assert_allclose(once, traced["rungs"]["kernel"], rtol=1e-6)
    assert not np.array_equal(once, functional.init(config, 4)["rungs"]["kernel"])
    assert len(np.unique(once)) == once.size, "stacked layers must be drawn independently"


@pytest.mark.parametrize(("remat", "unroll"), [("none", 1), ("full", 1), ("dots", 4)])
def test_scan_equals_an_explicit_loop_over_layers(remat, unroll):
    config = LadderConfig()
    params = functional.init(config, 0)
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)

    def scanned(params):
        return functional.apply(config, params, x, remat=remat, unroll=unroll)

    def looped(params):
        y, seen = x, []
        for i in range(4):
            seen.append(y)
            y = jnp.tanh(y @ params["rungs"]["kernel"][i] + params["rungs"]["bias"][i]) + i
        return y, jnp.stack(seen)

    def value_and_gradient(run):
        return jax.jit(jax.value_and_grad(lambda p: (run(p)[0].sum(), run(p)[1]), has_aux=True))

    got, expected = value_and_gradient(scanned)(params), value_and_gradient(looped)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)


@pytest.mark.parametrize("config", [TINY, DepthHeadConfig(), LadderConfig()])
def test_logical_axes_are_names_of_the_mesh_table_one_for_each_dimension(config):
    axes = functional.flatten(functional.logical_axes(config))
    for path, leaf in functional.flatten(functional.abstract_params(config)).items():
        names = [name for name in axes[path] if name is not None]
        assert len(axes[path]) == len(leaf.shape), path
        assert set(names) <= AXES, path
        assert len(names) == len(set(names)), path


def test_apply_names_missing_unexpected_and_misshapen_parameters():
    config = LadderConfig()
    params = functional.init(config, 0)
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"missing \(1\): rungs/bias"):
        functional.apply(config, {"rungs": {"kernel": params["rungs"]["kernel"]}}, x)
    with pytest.raises(ValueError, match=r"unexpected \(1\): spare"):
        functional.apply(config, params | {"spare": x}, x)
    with pytest.raises(ValueError, match=r"rungs/bias: got \(4, 3\), expected \(2, 3\)"):
        functional.apply(LadderConfig(layers=2), params, x)


def test_modules_that_hold_more_than_parameters_are_refused_by_name():
    with pytest.raises(TypeError, match="count is a Variable"):
        functional.abstract_params(CountingConfig())


def test_apply_works_in_both_modes_of_nnx():
    config = LadderConfig()
    x = jnp.ones((2, 3))
    expected, _ = functional.apply(config, functional.init(config, 0), x)
    with nnx.set_graph_mode(False):
        functional._skeleton.cache_clear()
        got, _ = functional.apply(config, functional.init(config, 0), x)
    functional._skeleton.cache_clear()
    np.testing.assert_array_equal(got, expected)
