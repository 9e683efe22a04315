"""Low-rank adaptation as a transformation of the parameter tree.

Conventions: a LoRA is a nested dict that mirrors the parameters it changes: where those have
`<module>/kernel` of shape [..., in, out], it has `<module>/a` [..., in, rank] and `<module>/b`
[..., rank, out]; stacked layers keep their leading axis. The adapted kernel is
kernel + scale * a @ b with scale = alpha / rank; the released weights use scale 1. To generate,
merge it (`apply_lora`); to train, keep it beside the kernels (`adapted.py`).

Read next: `adapted.py`, `convert/lora.py` for released LoRA files, `functional.py` for parameter
trees.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp

from mirage_jax.models.functional import Params, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which kernels get a low-rank delta, and of what rank.

    Attributes:
      rank: columns of `a` and rows of `b`.
      alpha: the delta is alpha / rank * a @ b; None stands for `rank`, a scale of 1 as released.
      targets: regular expression that a module's whole path must match; the default is what the
        release adapts: every projection of the backbone's blocks, but not the memory branch.
    """

    rank: int = 32
    alpha: float | None = None
    targets: str = r"blocks/(self_attn/[qkvo]|cross_attn/[qkvo]|ffn/(up|down))"

    def __post_init__(self):
        """Refuse an empty rank."""
        if self.rank < 1:
            raise ValueError(f"lora.rank: got {self.rank}, expected at least 1; use e.g. 32")

    @property
    def scale(self) -> float:
        """Factor of the delta."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def target_modules(config: LoraConfig, params: Params) -> list[tuple[str, ...]]:
    """Return the paths of the modules with a kernel whose whole path matches `config.targets`.

    Raises:
      ValueError: if none does.
    """
    flat = flatten(params)
    modules = [path[:-1] for path in flat if path[-1] == "kernel"]
    pattern = re.compile(config.targets)
    matched = [module for module in modules if pattern.fullmatch("/".join(module))]
    if not matched:
        raise ValueError(
            f"lora.targets: got {config.targets!r}, which matches no module; expected a regular "
            f"expression that matches some of {sorted('/'.join(m) for m in modules)}"
        )
    return matched


def init_lora(config: LoraConfig, params: Params, key: jax.Array) -> Params:
    """Draw a LoRA whose delta is zero: `a` uniform, `b` zero.

    Args:
      config: rank and targets.
      params: parameters, or abstract parameters, of the model to adapt.
      key: JAX key.

    Returns:
      The LoRA tree.

    Raises:
      ValueError: if `config.targets` matches no module.
    """
    flat = flatten(params)
    tree = {}
    for index, module in enumerate(target_modules(config, params)):
        kernel = flat[(*module, "kernel")]
        *lead, rows, columns = kernel.shape
        bound = rows**-0.5
        draw = jax.random.fold_in(key, index)
        tree[(*module, "a")] = jax.random.uniform(
            draw, (*lead, rows, config.rank), jnp.float32, -bound, bound
        )
        tree[(*module, "b")] = jnp.zeros((*lead, config.rank, columns), jnp.float32)
    return unflatten(tree)


def apply_lora(params: Params, lora: Params, scale: float | jax.Array = 1.0) -> Params:
    """Return parameters with the LoRA merged in; differentiable in all arguments.

    The sum is rounded to the kernel's type: bfloat16 kernels keep 8 bits of it.

    Args:
      params: parameters of the model.
      lora: tree from `init_lora` or `convert.lora_from_release`.
      scale: factor of the delta, alpha / rank; 0 switches it off.

    Raises:
      ValueError: naming a module that `params` does not have, or whose shape does not fit.
    """
    flat = flatten(params)
    factors = flatten(lora)
    for path, a in factors.items():
        if path[-1] != "a":
            continue
        module = "/".join(path[:-1])
        target = (*path[:-1], "kernel")
        if target not in flat:
            raise ValueError(
                f"LoRA module {module}: the model has no such kernel; use the LoRA with the model "
                "it was trained for"
            )
        b = factors[(*path[:-1], "b")]
        kernel = flat[target]
        if (*a.shape[:-1], b.shape[-1]) != kernel.shape or a.shape[-1] != b.shape[-2]:
            raise ValueError(
                f"LoRA module {module}: got a {a.shape} and b {b.shape}, expected factors of a "
                f"kernel {kernel.shape}; use the LoRA with the model it was trained for"
            )
        delta = scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        flat[target] = (kernel + delta).astype(kernel.dtype)
    return unflatten(flat)


def remove_lora(params: Params, lora: Params, scale: float | jax.Array = 1.0) -> Params:
    """Undo `apply_lora`: return the parameters it was given, as far as their type allows.

    Each direction rounds once, by at most half a unit in the last place of the merged kernel. An
    entry therefore comes back within 2^-23 (float32) or 2^-7 (bfloat16) of the larger of its two
    values, and often not to the bit. Keep the unmerged weights where bits matter.

    Raises:
      ValueError: as `apply_lora`.
    """
    return apply_lora(params, lora, -scale)
