"""The memory branch: blocks beside the backbone that turn the memory read into hints.

Conventions: the branch sees target and preceding frames only, never references. Its input
projection and its hints start at zero, so an untrained branch leaves the backbone unchanged.
In the released weights this branch is called VACE.

Read next: `condition.py` for what is fed to it, `denoiser.py` for where the hints go.
"""

import jax
from flax import nnx
from jaxtyping import Float

from mirage_jax.models.block import Block, BlockInputs
from mirage_jax.models.functional import scan_layers, stack_layers
from mirage_jax.models.layers import BlockSizes, Linear


class BranchBlock(nnx.Module):
    """A whole block, and a projection of its output that is the hint."""

    def __init__(self, sizes: BlockSizes, has_text: bool, *, rngs: nnx.Rngs):
        """Draw the block and make the zero projection."""
        self.block = Block(sizes, has_text, rngs=rngs)
        self.after_proj = _zero_projection(sizes, rngs)

    def __call__(
        self, x: Float[jax.Array, "b t s d"], inputs: BlockInputs
    ) -> tuple[Float[jax.Array, "b t s d"], Float[jax.Array, "b t s d"]]:
        """Return the updated branch tokens and the hint."""
        x = self.block(x, inputs)
        return x, self.after_proj(x)


class MemoryBranch(nnx.Module):
    """Side branch with one block for each hint."""

    def __init__(
        self, sizes: BlockSizes, has_text: bool, layers: int, in_width: int, *, rngs: nnx.Rngs
    ):
        """Make the branch.

        Args:
          sizes: of the blocks, those of the backbone.
          has_text: whether blocks attend to text.
          layers: number of branch blocks.
          in_width: channels of the condition in one patch.
          rngs: source of keys.
        """
        self.patch_embedding = Linear(in_width, sizes.width, (None, "embed"), rngs=rngs)
        self.before_proj = _zero_projection(sizes, rngs)
        self.blocks = stack_layers(
            lambda rngs: BranchBlock(sizes, has_text, rngs=rngs), layers, rngs=rngs
        )

    def __call__(
        self,
        patches: Float[jax.Array, "b t s p"],
        backbone: Float[jax.Array, "b t s d"],
        inputs: BlockInputs,
        *,
        remat: str,
        unroll: int,
    ) -> Float[jax.Array, "m b t s d"]:
        """Return one hint a branch block.

        Args:
          patches: the condition cut into patches.
          backbone: the backbone's embedded tokens of the same frames, before its first block.
          inputs: modulation, positions and text of these frames.
          remat: a key of `functional.REMAT`.
          unroll: blocks run by one iteration of the scan.
        """
        x = self.before_proj(self.patch_embedding(patches)) + backbone
        _, hints = scan_layers(
            self.blocks, lambda block, x, _: block(x, inputs), x, remat=remat, unroll=unroll
        )
        return hints


def _zero_projection(sizes: BlockSizes, rngs: nnx.Rngs) -> Linear:
    return Linear(
        sizes.width,
        sizes.width,
        ("embed", None),
        rngs=rngs,
        kernel_init=nnx.initializers.zeros,
        products=sizes.products,
    )
