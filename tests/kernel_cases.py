"""What the tests of the TPU and the GPU kernels share: scenes, sizes, compiling ahead of time."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows import SeenFrom, ViewRule, seen_from
from mirage_jax.ops.rasterize_points import CellGrid, Pages, WorkList, list_pages, rasterize_points
from mirage_jax.ops.rasterize_points.arg_specs import make_arguments

RULE = ViewRule(shell=0.3, same_place=0.05)


def scene(spec, seed=0):
    """Return a case with pages of 128 rows, as JAX arrays, and its list."""
    pages, camera, grid = make_arguments(dataclasses.replace(spec, page_rows=128), seed)
    pages, camera = jax.tree.map(jnp.asarray, (pages, camera))
    return pages, camera, grid, list_pages(pages.bounds, camera, grid)


def seen_scene(spec, seed=3):
    pages, camera, grid, _ = scene(spec, seed)
    rng = np.random.default_rng(seed)
    origin = jnp.asarray(rng.uniform(-1, 1, pages.positions.shape), jnp.float32)
    origin = jnp.where(rng.random(pages.order.shape)[:, None] < 0.3, 0.0, origin)
    depth = jnp.asarray(rng.uniform(0.5, 9, pages.order.shape), jnp.float32)
    views = seen_from(origin, depth, pages.order)
    surface = rasterize_points(pages, camera, grid).depth
    return pages, views, camera, grid, surface


def compile_for(mesh, function, *shapes, donate=()):
    """Compile for the devices of a mesh; the arguments are trees of shapes and types."""
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes
    )
    with jax.set_mesh(mesh):
        return jax.jit(function, donate_argnums=donate).lower(*arguments).compile()


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


# A memory of 1e6 rows read by nine cameras.
N, P, T, M = 3907, 256, 9, 9 * 44 * 80
GRID = CellGrid(44, 80)
PAGES = Pages(f32(N, 3, P), i32(N, P), f32(N, 2, 3))
CAMERA = Camera(f32(T, 4, 4), f32(T, 3, 3))
LIST = WorkList(i32(T, N), f32(T, N), i32(T))
SEEN = SeenFrom(f32(N, 3, P), f32(N, P), f32(N, 2, 3), f32(N))
LINES = f32(128_000, 8 * 48)
TABLE_BYTES = N * P * 4


def operations(compiled):
    """Return the names of the operations in the compiled text, and the lines they stand in."""
    pattern = re.compile(r"^\s*(?:ROOT )?%\S+ = .*?[})\]] ([a-z][a-z0-9-]*)\(", re.MULTILINE)
    text = compiled.as_text()
    return [(match.group(1), match.group(0)) for match in pattern.finditer(text)]
