"""Rolls one scene out without a mesh and on meshes of simulated devices that share its memory.

A program of its own, since devices are counted when JAX starts; `test_spread_rollout.py` runs it
with eight of them. Prints one JSON object.
"""

import contextlib
import dataclasses
import json
import sys

import jax
import numpy as np
from tiny_world import batched, flat_scene, sideways_and_back, tiny_spec, world_of

from mirage_jax.distributed.mesh import MeshConfig, make_mesh
from mirage_jax.eval.views import stack_starts
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.loop import RolloutConfig, rollout

FRAMES = 17


def show_memory(chunk, observation, inputs, noise):
    """Show what memory shows; where it shows nothing, something new."""
    seen = np.asarray(observation.read.visibility)[..., None]
    latents = np.where(seen, np.asarray(observation.filled), np.asarray(noise))
    latents[:, 0] = inputs.first
    return latents


def wall(chunk, observation, latents):
    """Tell the depth of the scene's wall."""
    depth = np.full(latents.shape[:-1], 4.0, np.float32)
    return depth, np.ones(depth.shape, bool)


def roll(sizes, write_where):
    """Return the last state of a rollout on a mesh of these sizes; None takes no mesh."""
    spec = tiny_spec()
    rules = {"partitions": 8, "retention": "newest", "write_where": write_where}
    memory = dataclasses.replace(spec.memory, page_rows=8, **rules)
    world = world_of(dataclasses.replace(spec, memory=memory))
    on_mesh = contextlib.nullcontext()
    if sizes is not None:
        on_mesh = jax.set_mesh(make_mesh(MeshConfig(**sizes)))
    with on_mesh:
        start, cameras = stack_starts([flat_scene()]), batched(sideways_and_back(FRAMES, 5.0))
        providers = Providers(latents=show_memory, depth=wall)
        *_, last = rollout(world, start, cameras, RolloutConfig(), providers=providers)
    return last


def differing(first, second):
    """Return the names of the leaves that differ in any bit, with the greatest difference."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True)
    found = {}
    for (path, one), other in pairs:
        one, other = np.asarray(one), np.asarray(other)
        if not np.array_equal(one, other):
            found[jax.tree_util.keystr(path)] = float(np.abs(one - other).max())
    return found


def main():
    """Compare meshes with no mesh and print what was found."""
    found = {}
    for write_where, sizes in (("all", {"context": 8}), ("unseen", {"context": 4, "tensor": 2})):
        expected, got = roll(None, write_where), roll(sizes, write_where)
        tokens = got.state.memory.tokens
        found[write_where] = {
            "differing": differing(got.state, expected.state),
            "rows": int(got.rows[0]),
            "share of tokens": tokens.addressable_shards[0].data.size / tokens.size,
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    sys.exit(main())
