"""Low-rank adaptation as a transformation of the parameter tree.

Conventions: a LoRA is a nested dict that mirrors the parameters it changes: where those have
`<module>/kernel` of shape [..., in, out], it has `<module>/a` [..., in, rank] and `<module>/b`
[..., rank, out]; stacked layers keep their leading axis. The adapted kernel is
kernel + scale * a @ b; the released weights use scale 1.

Read next: `convert/lora.py` for released LoRA files, `functional.py` for parameter trees.
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
      targets: regular expression that a module's whole path must match; the default is what the
        release adapts: every projection of the backbone's blocks, but not the memory branch.
    """

    rank: int = 32
    targets: str = r"blocks/(self_attn/[qkvo]|cross_attn/[qkvo]|ffn/(up|down))"

    def __post_init__(self):
        """Refuse an empty rank."""
        if self.rank < 1:
            raise ValueError(f"lora.rank: got {self.rank}, expected at least 1; use e.g. 32")


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
    pattern = re.compile(config.targets)
    matched = [p[:-1] for p in flat if p[-1] == "kernel" and pattern.fullmatch("/".join(p[:-1]))]
    if not matched:
        modules = sorted("/".join(p[:-1]) for p in flat if p[-1] == "kernel")
        raise ValueError(
            f"lora.targets: got {config.targets!r}, which matches no module; expected a regular "
            f"expression that matches some of {modules}"
        )
    tree = {}
    for index, module in enumerate(matched):
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
