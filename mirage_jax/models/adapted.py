"""A denoiser with a LoRA beside its kernels, for training the LoRA.

Merging first and differentiating through the sum would make a gradient as large as the kernels.
Here the two factors are parameters of the linear maps themselves,
`x @ kernel + scale * (x @ a) @ b`, so kernels that are held fixed get no gradient. Conventions: the
parameter tree is that of the denoiser with the LoRA's tree laid over it, which has its leaves `a`
and `b` beside `kernel`.

Read next: `lora.py` for the LoRA's own tree, `mirage_jax/train/tuning.py` for who trains it.
"""

import dataclasses
import re

import jax.numpy as jnp
from flax import nnx

from mirage_jax.models.denoiser import Denoiser, DenoiserConfig
from mirage_jax.models.layers import Linear
from mirage_jax.models.lora import LoraConfig


@dataclasses.dataclass(frozen=True)
class AdaptedDenoiserConfig(DenoiserConfig):
    """A denoiser whose linear maps named by `lora.targets` have low-rank factors.

    Attributes:
      lora: rank, scale and targets.
    """

    lora: LoraConfig = LoraConfig()

    def build(self, rngs: nnx.Rngs) -> Denoiser:
        """Return the module; all factors start at zero (`lora.init_lora` draws them)."""
        model = super().build(rngs)
        pattern = re.compile(self.lora.targets)
        for path, module in nnx.iter_modules(model):
            if isinstance(module, Linear) and pattern.fullmatch("/".join(map(str, path))):
                _attach(module, self.lora)
        return model


def adapted(config: DenoiserConfig, lora: LoraConfig) -> AdaptedDenoiserConfig:
    """Return the config of the same denoiser with a LoRA beside its kernels."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(DenoiserConfig)}
    return AdaptedDenoiserConfig(**values, lora=lora)


def _attach(module: Linear, lora: LoraConfig) -> None:
    *lead, rows, columns = module.kernel.shape
    axes = module.kernel.get_metadata()["axes"]
    module.scale = lora.scale
    module.a = nnx.Param(jnp.zeros((*lead, rows, lora.rank)), axes=(*axes[:-1], None))
    module.b = nnx.Param(jnp.zeros((*lead, lora.rank, columns)), axes=(*axes[:-2], None, axes[-1]))
