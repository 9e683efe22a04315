"""The latent depth head: starts at the memory's depth, looks back but never ahead."""

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models import functional
from mirage_jax.models.depth_head import DepthHeadConfig

CONFIG = DepthHeadConfig(latent_channels=4, width=8, blocks=1)
HERE = (1, 4, 3, 5)


def test_at_init_the_depth_is_the_memorys_where_it_shows_any():
    latents, depth, visibility, rays = _inputs()
    params = functional.init(CONFIG, 0)
    log_depth, sky = functional.apply(CONFIG, params, latents, depth, visibility, rays)
    np.testing.assert_allclose(jnp.exp(log_depth)[visibility], depth[visibility], rtol=1e-5)
    np.testing.assert_array_equal(log_depth[~visibility], 0.0)
    np.testing.assert_array_equal(sky, 0.0)


def test_a_frame_sees_itself_and_the_one_before_but_never_a_later_one():
    latents, depth, visibility, rays = _inputs()
    params = jax.tree.map(lambda leaf: leaf + 0.05, functional.init(CONFIG, 0))

    def run(latents):
        return functional.apply(CONFIG, params, latents, depth, visibility, rays)[0]

    moved = np.abs(run(latents.at[:, 1].add(1.0)) - run(latents)).max(axis=(0, 2, 3)) > 1e-6
    np.testing.assert_array_equal(moved, [False, True, True, False])


def test_unseen_cells_give_finite_gradients_and_the_sizes_are_small():
    latents, depth, visibility, rays = _inputs()
    params = functional.init(CONFIG, 0)

    def total(params, depth):
        log_depth, sky = functional.apply(CONFIG, params, latents, depth, visibility, rays)
        return (log_depth + sky).sum()

    gradients = jax.grad(total, argnums=(0, 1))(params, depth)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert functional.count_params(functional.abstract_params(DepthHeadConfig())) < 1_000_000


def _inputs():
    keys = jax.random.split(jax.random.key(0), 4)
    visibility = jax.random.bernoulli(keys[0], shape=HERE)
    depth = jnp.where(visibility, jnp.exp(jax.random.normal(keys[1], HERE)), 0.0)
    latents = jax.random.normal(keys[2], (*HERE, 4))
    return latents, depth, visibility, jax.random.normal(keys[3], (*HERE, 6))
