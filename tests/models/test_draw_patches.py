"""Patches drawn in two passes over pixels show what a plain loop over patches shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_patches import draw_plainly

from mirage_jax.models.draw_patches import Placed, draw_patches

STRIDE = 4


def random_read(seed, k=3, n=2, h=5, w=6, **changes) -> Placed:
    rng = np.random.default_rng(seed)
    shape = (k, n, h, w)
    axes = np.eye(3, 2) * rng.uniform(0.2, 2.2, (*shape, 1, 1)) + 0.3 * rng.normal(
        size=(*shape, 3, 2)
    )
    fields = {
        "tokens": np.zeros((*shape, 1)),
        "visibility": rng.random(shape) < 0.6,
        "offset": rng.uniform(-0.5, 0.5, (*shape, 2)),
        "axes": axes,
        "depth": rng.choice([2.0, 2.04, 2.2, 1000.0], shape),
    }
    return as_arrays(fields | changes)


def as_arrays(fields) -> Placed:
    kinds = {"visibility": bool}
    return Placed(**{key: jnp.asarray(v, kinds.get(key, np.float32)) for key, v in fields.items()})


def even_read(seed, scales=(0.5, 1.0, 2.0), k=4, h=4, w=5) -> Placed:
    """Patches whose edges meet at pixels, often of equal weight, all without rounding."""
    rng = np.random.default_rng(seed)
    shape = (k, 1, h, w)
    axes = np.zeros((*shape, 3, 2))
    axes[..., 0, 0], axes[..., 1, 1] = rng.choice(scales, (2, *shape))
    return random_read(
        seed,
        k=k,
        n=1,
        h=h,
        w=w,
        offset=rng.choice([-0.5, -0.25, -0.125, 0.0, 0.25], (*shape, 2)),
        axes=axes,
        depth=rng.choice([1.0, 4.0], shape, p=[0.2, 0.8]),
    )


def random_patches(read: Placed, seed=9) -> np.ndarray:
    shape = (*read.depth.shape, STRIDE, STRIDE, 3)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def drawn(read, patches, margin=0):
    """The colours [n, h, w, p, 3] and weights that the package draws."""
    patches = jnp.moveaxis(patches, 0, 1)
    planes = patches.reshape(*patches.shape[:4], -1, 3)
    planes = planes.swapaxes(-1, -2).reshape(*planes.shape[:4], -1)
    colours, cover = draw_patches(STRIDE, read, planes, margin)
    return jnp.stack(colours, -1), cover


plain = jax.jit(lambda read, patches: draw_plainly(STRIDE, read, patches))


@pytest.mark.parametrize("seed", range(6))
def test_ties_and_edges_without_rounding_are_drawn_the_same(seed):
    read = even_read(seed)
    patches = random_patches(read, seed)
    for got, want in zip(drawn(read, patches), plain(read, patches), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_equal_patches_in_one_place_show_the_first_listed():
    read = even_read(0, scales=(1.0,), k=4)
    everywhere = jnp.ones_like(read.visibility)
    read = read._replace(
        visibility=everywhere, offset=0.0 * read.offset, depth=1.0 + 0 * read.depth
    )
    patches = random_patches(read)
    # All four rows of a cell tie: the first two are shown, half of each.
    halves = patches[:2, 0].mean(0).reshape(*read.depth.shape[2:], -1, 3)
    colour, cover = drawn(read, patches)
    middle = [5, 6, 9, 10]
    np.testing.assert_allclose(
        (colour / cover[..., None])[0, :, :, middle],
        halves[:, :, middle].transpose(2, 0, 1, 3),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "read",
    [
        random_read(0),
        random_read(1, k=1),
        random_read(2, h=1, w=1),
        random_read(3, visibility=np.ones((3, 2, 5, 6), bool)),
        random_read(4, axes=np.random.default_rng(4).normal(size=(3, 2, 5, 6, 3, 2))),
        random_read(5, axes=8.0 * random_read(5).axes),
    ],
    ids=["some", "one row", "one cell", "full", "any axes", "large"],
)  # fmt: skip
def test_what_is_drawn_is_what_the_plain_loop_draws(read):
    patches = random_patches(read)
    (colour, cover), (want, weight) = drawn(read, patches), plain(read, patches)
    # Where rounding decides what is in front, a pixel may show the one or the other.
    other = np.abs(np.asarray(colour - want)).max(-1) > 1e-4
    assert other.mean() < 2e-3
    np.testing.assert_allclose(np.asarray(cover)[~other], np.asarray(weight)[~other], atol=1e-4)
    assert np.asarray(weight).any()


@pytest.mark.parametrize("why", ["nothing there", "seen from the edge", "seen from behind"])
def test_what_cannot_be_seen_is_not_drawn(why):
    read = random_read(7)
    if why == "nothing there":
        read = read._replace(visibility=jnp.zeros_like(read.visibility), axes=jnp.nan * read.axes)
    elif why == "seen from the edge":
        read = read._replace(axes=read.axes.at[..., 1, :].set(read.axes[..., 0, :]))
    else:
        mirrored = jnp.broadcast_to(jnp.array([[-1.0, 0], [0, 1], [0, 0]]), read.axes.shape)
        read = read._replace(axes=mirrored)
    for array in drawn(read, random_patches(read)):
        np.testing.assert_array_equal(array, 0.0)


def test_gradients_of_patches_are_those_of_the_plain_loop():
    read = even_read(3)
    patches = random_patches(read)
    aim = jnp.asarray(np.random.default_rng(1).normal(size=plain(read, patches)[0].shape))
    got, want = (
        jax.jit(jax.grad(lambda x, draw=draw: jnp.sum(aim * draw(read, x)[0])))(patches)
        for draw in (drawn, plain)
    )
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(np.asarray(want)).max() > 0.1


def test_rows_around_the_view_are_drawn_as_in_a_larger_view():
    read = random_read(8, h=8, w=9)
    patches = random_patches(read)
    for got, want in zip(drawn(read, patches, 2), plain(read, patches), strict=True):
        other = np.abs(np.asarray(got - want[:, 2:-2, 2:-2])) > 1e-4
        assert other.mean() < 2e-3


def test_more_rows_than_can_be_numbered_are_refused():
    read = jax.eval_shape(lambda: random_read(0, k=1))
    read = jax.tree.map(lambda x: jax.ShapeDtypeStruct((600, *x.shape[1:]), x.dtype), read)
    patches = jax.ShapeDtypeStruct((2, 600, 5, 6, 48), jnp.float32)
    with pytest.raises(ValueError, match="got 600 rows a cell and a margin of 0 cells, expected"):
        jax.eval_shape(lambda read, patches: draw_patches(STRIDE, read, patches), read, patches)
