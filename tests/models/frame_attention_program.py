"""Attention among the places of frames on eight devices and on one, as JSON.

A program of its own, since devices are counted when JAX starts; see
`test_frame_attention_on_meshes.py`.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.mesh import MeshConfig, make_mesh
from mirage_jax.models.autoencoder_blocks import FrameAttention

layer = FrameAttention(16, rngs=nnx.Rngs(0))
mesh = make_mesh(MeshConfig(data=4, fsdp=2))


def outcome(rows: int) -> dict[str, object]:
    """Return how far the devices' values are from one device's, and the collectives they take."""
    x = jnp.asarray(np.random.default_rng(rows).normal(size=(rows, 2, 40, 48, 16)), jnp.float32)
    alone = layer(x)
    spec = P(("data", "fsdp")) if rows % 8 == 0 else P()
    with jax.set_mesh(mesh):
        together = jax.jit(lambda x: layer(x), out_shardings=NamedSharding(mesh, spec))
        program = together.lower(jax.device_put(x, NamedSharding(mesh, spec))).compile()
        found = program(jax.device_put(x, NamedSharding(mesh, spec)))
    text = program.as_text()
    kinds = ("all-gather", "all-to-all", "all-reduce", "collective-permute")
    return {
        "error": float(jnp.abs(jax.device_get(found) - alone).max()),
        "collectives": [kind for kind in kinds if f" {kind}(" in text],
    }


json.dump({rows: outcome(rows) for rows in (8, 16, 3)}, sys.stdout)
