"""A memory branch for a backbone that has none: drawn, or a copy of the backbone's blocks.

Conventions: whatever it starts as, its hints are zero, so that the backbone is unchanged until it
is trained. Read next: `branch.py` for the branch, `mirage_jax/train/start.py` for who asks.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mirage_jax.models import functional
from mirage_jax.models.branch import MemoryBranch
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Params


@dataclasses.dataclass(frozen=True)
class BranchConfig:
    """The memory branch of a denoiser as a model of its own.

    Attributes:
      denoiser: sizes of the denoiser it belongs to.
    """

    denoiser: DenoiserConfig

    def build(self, rngs: nnx.Rngs) -> MemoryBranch:
        """Return the module with freshly drawn parameters."""
        return self.denoiser.build_branch(rngs)


def without_branch(config: DenoiserConfig) -> DenoiserConfig:
    """Return the config of the backbone alone."""
    return dataclasses.replace(config, branch_layers=(), condition_channels=0)


def new_branch(
    config: DenoiserConfig, backbone: Params, start: Literal["fresh", "copy"], key: jax.Array
) -> Params:
    """Return the parameters of a memory branch whose hints are zero.

    Args:
      config: of the denoiser with its branch.
      backbone: parameters of the denoiser without it.
      start: "fresh", or "copy": each branch block begins as the backbone block after which its
        hint is added, and the branch embeds the tokens it is told as the backbone does its own,
        other channels not at all.
      key: of what is drawn.
    """
    branch = functional.init(BranchConfig(config), key)
    if start == "fresh":
        return branch
    layers = jnp.asarray(config.branch_layers)
    branch["blocks"]["block"] = jax.tree.map(lambda leaf: leaf[layers], backbone["blocks"])
    kernel = backbone["patch_embedding"]["kernel"]
    cells = kernel.reshape(config.patch_cells, config.latent_channels, config.width)
    others = config.condition_channels - config.latent_channels
    padded = jnp.pad(cells, ((0, 0), (0, others), (0, 0))).reshape(-1, config.width)
    branch["patch_embedding"] = {**backbone["patch_embedding"], "kernel": padded}
    return branch
