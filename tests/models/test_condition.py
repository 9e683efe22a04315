"""The branch's input: channels in the stated order, finite where nothing was seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models.condition import (
    RELEASE,
    ConditionConfig,
    build_condition,
    condition_channels,
)

HERE = (2, 3, 4, 5)


@pytest.fixture
def parts():
    keys = jax.random.split(jax.random.key(0), 5)
    visibility = jax.random.bernoulli(keys[0], shape=HERE)
    return {
        "tokens": jax.random.normal(keys[1], (*HERE, 7)),
        "visibility": visibility,
        "depth": jnp.where(visibility, jnp.exp(jax.random.normal(keys[2], HERE)), 0.0),
        "rays": 10 * jax.random.normal(keys[3], (*HERE, 6)),
        "geometry": jax.random.normal(keys[4], (*HERE, 4)),
    }


@pytest.mark.parametrize(
    "config",
    [
        ConditionConfig(),
        ConditionConfig(depth=False, rays=False, geometry=False),
        ConditionConfig(tokens=False, geometry=False),
    ],
)
def test_channels_are_as_many_as_announced_and_finite(config, parts):
    condition = build_condition(config, **parts)
    assert condition.shape == (*HERE, condition_channels(config, 7))
    assert bool(jnp.isfinite(condition).all())


def test_parts_come_in_the_order_of_the_config(parts):
    condition = np.asarray(build_condition(ConditionConfig(), **parts))
    visible = np.asarray(parts["visibility"])
    np.testing.assert_array_equal(condition[..., :7], parts["tokens"])
    np.testing.assert_array_equal(condition[..., 7], visible)
    np.testing.assert_allclose(
        np.exp(condition[..., 8][visible]), parts["depth"][visible], rtol=1e-5
    )
    np.testing.assert_array_equal(condition[..., 8][~visible], 0.0)
    np.testing.assert_array_equal(condition[..., 9:12], parts["rays"][..., :3])
    moment = condition[..., 12:15]
    np.testing.assert_allclose(
        np.sign(moment) * np.expm1(np.abs(moment)), parts["rays"][..., 3:], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(condition[..., 15:], parts["geometry"])


def test_release_mode_is_tokens_and_constant_score(parts):
    score = jnp.arange(48.0)
    tokens = jnp.ones((*HERE, 48))
    condition = build_condition(RELEASE, tokens=tokens, score=score)
    assert condition.shape[-1] == 96
    np.testing.assert_array_equal(condition[1, 2, 3, 4], jnp.concatenate([jnp.ones(48), score]))


def test_gradients_through_unseen_cells_are_finite(parts):
    def total(depth):
        return build_condition(ConditionConfig(), **(parts | {"depth": depth})).sum()

    assert bool(jnp.isfinite(jax.grad(total)(parts["depth"])).all())


def test_a_part_that_is_asked_for_and_absent_or_misshapen_is_named(parts):
    with pytest.raises(
        ValueError, match=r"condition.rays: got None, expected shape \(2, 3, 4, 5, 6\)"
    ):
        build_condition(ConditionConfig(), **(parts | {"rays": None}))
    with pytest.raises(ValueError, match="condition.geometry: got"):
        build_condition(ConditionConfig(), **(parts | {"geometry": parts["rays"]}))
    with pytest.raises(ValueError, match="at least one part"):
        ConditionConfig(tokens=False, visibility=False, depth=False, rays=False, geometry=False)
