"""Denoiser, autoencoder and text encoder against the release's outputs."""

import functools
from collections.abc import Iterator
from pathlib import Path

import jax

from mirage_jax.models import functional
from mirage_jax.models.denoiser import FrameLayout
from mirage_jax.models.lora import apply_lora
from tests.golden.case import Line, relative_error, within
from tests.golden.release_files import (
    arrays,
    autoencoder,
    channel_last,
    denoiser,
    lora,
    text_encoder,
)

LIMIT = 1e-4
# Compiling takes longer than running these sizes.
_quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def denoiser_cases(directory: Path) -> Iterator[Line]:
    """Compare every stored call with the branch; then, as one case, those without it."""
    config, params = denoiser(directory)
    stored = arrays(directory, "denoiser.npz")
    without_memory = []
    for case in [name.removesuffix("_x") for name in stored if name.endswith("_x")]:
        layout = FrameLayout(*(int(stored[f"{case}_{kind}"]) for kind in "RTP"))
        weights = apply_lora(params, lora(directory)) if case == "lora" else params
        outputs = _run_denoiser(
            config,
            layout,
            weights,
            channel_last(stored[f"{case}_x"]),
            stored[f"{case}_t"][None],
            stored[f"{case}_scene"].transpose(1, 2, 3, 0)[None],
            stored[f"{case}_ctx"],
        )
        errors = [
            relative_error(got, channel_last(stored[f"{case}_{name}"]))
            for name, got in zip(("out", "out_nomem"), outputs, strict=True)
        ]
        without_memory.append(errors[1])
        yield within(f"denoiser.{case}", errors[0], LIMIT)
    yield within("denoiser.no-memory", max(without_memory), LIMIT)


@functools.partial(_quick_jit, static_argnums=(0, 1))
def _run_denoiser(config, layout, params, x, timestep, condition, text):
    """Return every frame's output, with and without the memory branch."""
    run = functools.partial(functional.apply, config, params, method="every_frame")
    return run(x, timestep, condition, text, layout), run(x, timestep, None, text, layout)


def vae_cases(directory: Path) -> Iterator[Line]:
    """Compare encoding and decoding of every stored clip, `x<frames>`."""
    config, params = autoencoder(directory)
    stored = arrays(directory, "vae.npz")

    @functools.partial(_quick_jit, static_argnums=2)
    def run(params, x, method):
        return functional.apply(config, params, x, method=method)

    for frames in sorted(int(name[1:]) for name in stored if name[0] == "x"):
        video, latents, decoded = (channel_last(stored[f"{name}{frames}"]) for name in "xzy")
        errors = {
            "encode": relative_error(run(params, video, "encode"), latents),
            "decode": relative_error(run(params, latents, "decode"), decoded),
        }
        part = max(errors, key=errors.__getitem__)
        yield within(f"vae.{frames}", errors[part], LIMIT, f"worst: {part}")


def text(directory: Path) -> Iterator[Line]:
    """Compare the embeddings of padded prompts, padding rows included."""
    config, params = text_encoder(directory)
    stored = arrays(directory, "text.npz")
    run = _quick_jit(functools.partial(functional.apply, config))
    got = run(params, stored["ids"], stored["mask"])
    yield within("text", relative_error(got, stored["emb"]), LIMIT)
