"""How large a run is, from configs alone: tokens of a chunk, parameters, bytes by what holds them.

Parameters, moments and the latent memory are counted exactly. Activations are an analytic estimate
of what is alive at once on one device: within a factor of 1.5 of what XLA reports for denoisers and
codecs small enough to compile in a test. Nothing is allocated here.

Read next: `mirage_jax/cli/plan.py`, which prints it for a config; `mirage_jax/train/loop.py` and
`mirage_jax/cli/generate.py` print it before they allocate anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mirage_jax.memory import state as memory_state
from mirage_jax.models import functional
from mirage_jax.models.attention_blocks import BLOCK_SCORES
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.world_model.parts import WorldConfigLike

TEXT_TOKENS = 512  # rows that the released text encoder pads prompts to


class Sized(WorldConfigLike, Protocol):
    """What an estimate needs of a config; a training config and a loaded world both have it."""

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Height and width of a latent frame in cells."""
        ...


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The size of a run on one device.

    Attributes:
        frame_tokens: tokens of a latent frame.
        frames: latent frames that the denoiser sees at once, by kind.
        text_tokens: rows of the text, 0 for a denoiser without.
        batch: clips at once.
        parameters: scalars of each model.
        bytes: memory by what holds it.
    """

    frame_tokens: int
    frames: Mapping[str, int]
    text_tokens: int
    batch: int
    parameters: Mapping[str, int]
    bytes: Mapping[str, int]

    @property
    def sequence(self) -> int:
        """Tokens that attend to each other."""
        return self.frame_tokens * sum(self.frames.values())

    @property
    def total(self) -> int:
        """Bytes of everything together."""
        return sum(self.bytes.values())

    def text(self, device_bytes: int | None = None) -> str:
        """Render as lines; a total above `device_bytes`, where known, is said to be too much."""
        frames = " + ".join(f"{count} {kind}" for kind, count in self.frames.items() if count)
        text = f", text {self.text_tokens}" if self.text_tokens else ""
        lines = [
            f"tokens: {self.frame_tokens:,} a latent frame x ({frames}) = {self.sequence:,} "
            f"in a sequence{text}, batch {self.batch}",
            "parameters: " + ", ".join(f"{n} {c:,}" for n, c in self.parameters.items()),
        ]
        lines += [f"  {size_text(size):>10}  {name}" for name, size in self.bytes.items() if size]
        verdict = ""
        if device_bytes is not None:
            fits = "fits" if self.total <= device_bytes else "does NOT fit"
            verdict = f", {fits} the device's {size_text(device_bytes)}"
        return "\n".join([*lines, f"  {size_text(self.total):>10}  together{verdict}"])


def estimate_generation(world: Sized, *, batch: int = 1, references: int | None = None) -> Estimate:
    """Estimate a rollout.

    Models that compute in half precision keep their weights as they are stored, taken to be in
    that precision too, as released weights are; the others are read in float32.

    Args:
        world: configs.
        batch: rollouts side by side.
        references: reference frames of a chunk; None takes the most that the config allows.
    """
    parameters = _model_sizes(world)
    count = world.chunk.references.most if references is None else references
    frames = {"target": world.chunk.latent_frames, "preceding": world.chunk.preceding}
    frames["reference"] = count
    sizes = {
        f"{name} parameters": count * jnp.dtype(_dtype(world, name)).itemsize
        for name, count in parameters.items()
    }
    tokens = _frame_tokens(world) * sum(frames.values())
    sizes["activations"] = batch * forward_bytes(world.denoiser, tokens)
    sizes[_SCORES] = score_bytes(world.denoiser, tokens, batch=batch)
    sizes["latent memory"] = batch * memory_bytes(world.memory)
    sizes["codec, one streamed piece"] = batch * codec_bytes(world.codec, world.grid_hw)
    return _assemble(world, frames, batch, parameters, sizes)


def estimate_training(
    world: Sized,
    trained: Any,
    fixed: Any,
    *,
    moments: Any,
    batch: int,
    average: bool,
    memory_frames: int,
) -> Estimate:
    """Estimate an update of a stage that trains the denoiser or parts of it.

    Args:
        world: configs; the denoiser is the one that is applied, LoRA included.
        trained: abstract tree of trained parameters.
        fixed: abstract tree of the others.
        moments: abstract tree of the optimizer's state.
        batch: windows at once: of an update, or of one of its micro-batches.
        average: whether a moving average is kept.
        memory_frames: latent frames that a window's memory is made of.
    """
    moved = _tree_bytes(trained)
    frames = {"target": world.chunk.latent_frames, "preceding": world.chunk.preceding}
    tokens = _frame_tokens(world) * sum(frames.values())
    rows = memory_frames * math.prod(world.grid_hw)
    sized = dataclasses.replace(world.memory, capacity=rows)
    sizes = {
        "parameters held fixed": _tree_bytes(fixed),
        "parameters trained": moved,
        "gradients": moved,
        "moments": _tree_bytes(moments),
        "moving average": moved if average else 0,
        "activations": batch * backward_bytes(world.denoiser, tokens),
        _SCORES: score_bytes(world.denoiser, tokens, batch=batch, backward=True),
        "latent memory": batch * memory_bytes(sized),
    }
    parameters = {
        "trained": functional.count_params(trained),
        "held fixed": functional.count_params(fixed),
    }
    return _assemble(world, frames, batch, parameters, sizes)


def memory_bytes(config: memory_state.MemoryConfig) -> int:
    """Return the bytes of one latent memory at its capacity; exact."""
    return _tree_bytes(jax.eval_shape(lambda: memory_state.empty(config)))


def forward_bytes(config: DenoiserConfig, tokens: int) -> int:
    """Estimate what one forward pass of the denoiser holds at once, for one clip.

    The residual stream, hints for every block, and the larger of attention (without its weights,
    see `score_bytes`) and feed-forward net of one block.
    """
    size, d, m = jnp.dtype(config.dtype).itemsize, config.width, config.mlp_width
    hints = (config.layers + len(config.branch_layers)) if config.branch_layers else 0
    block = max(6 * d * size + 2 * d * 4, 2 * m * size + d * 4)
    return tokens * (block + (2 + hints) * d * size)


def backward_bytes(config: DenoiserConfig, tokens: int) -> int:
    """Estimate what a forward and backward pass of the denoiser holds at once, for one clip.

    Each block leaves for the backward pass what `config.remat` keeps; the block whose gradient is
    being computed has all its intermediates. Attention weights come on top, see `score_bytes`.
    """
    size, d, m = jnp.dtype(config.dtype).itemsize, config.width, config.mlp_width
    inside = tokens * (20 * d + 5 * m) * size
    kept = {
        "none": inside,
        "dots": tokens * (8 * d + m) * size,
        "full": tokens * d * size,
    }[config.remat]
    blocks = config.layers + len(config.branch_layers)
    hints = 2 * tokens * config.layers * d * size if config.branch_layers else 0
    return blocks * kept + hints + (0 if config.remat == "none" else inside)


def score_bytes(
    config: DenoiserConfig, tokens: int, *, batch: int = 1, backward: bool = False
) -> int:
    """Estimate the bytes of attention weights, float32.

    The models' own attention holds one block of them at a time, and the backward pass three such
    arrays; JAX's library holds the whole table, in the backward pass for every block it keeps.
    """
    table = 4 * batch * config.heads * tokens * tokens
    if config.attention != "library":
        return (3 if backward else 1) * min(table, 4 * BLOCK_SCORES)
    blocks = config.layers + len(config.branch_layers)
    return table if not backward else 3 * table * (blocks if config.remat == "none" else 1)


def codec_bytes(config: Any, grid_hw: tuple[int, int]) -> int:
    """Estimate what decoding one latent frame holds at once, the carried past included, in float32.

    Of the small codec, which decodes whole clips, the bytes of one latent frame.
    """
    cells = math.prod(grid_hw)
    if not isinstance(config, AutoencoderConfig):
        return 4 * cells * (4 * config.width + 2 * config.group_patch)
    frames, places = 1, cells
    past, widest = 0, 0
    for plan in config.decoder_plans:
        # Two frames before each convolution of a residual block.
        past += 2 * places * (plan.in_width + (2 * plan.blocks - 1) * plan.width)
        widest = max(widest, (frames + 2) * places * 4 * max(plan.in_width, plan.width))
        frames, places = frames * plan.time, places * plan.space**2
        widest = max(widest, frames * places * 2 * plan.out_width)
    return 4 * (2 * past + widest)


def device_bytes() -> int | None:
    """Return the memory of this process's first device, where JAX knows it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


def _frame_tokens(world: Sized) -> int:
    return math.prod(world.grid_hw) // world.denoiser.patch_cells


def _dtype(world: Sized, name: str) -> str:
    """Return the type a model computes in."""
    return getattr(getattr(world, name), "dtype", "float32")


def _model_sizes(world: Sized) -> dict[str, int]:
    models = {name: getattr(world, name) for name in _MODELS}
    return {
        name: functional.count_params(functional.abstract_params(config))
        for name, config in models.items()
        if config is not None
    }


_SCORES = "attention weights, of one block"
_MODELS = ("codec", "depth_head", "denoiser", "learned_read")


def _assemble(world: Sized, frames, batch: int, parameters, sizes) -> Estimate:
    text = TEXT_TOKENS if world.denoiser.text_width else 0
    return Estimate(_frame_tokens(world), frames, text, batch, parameters, sizes)


def _tree_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def size_text(size: float) -> str:
    """Return bytes as GiB, or as MiB below one."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
