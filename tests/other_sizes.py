"""Writes a directory in the format of `tests/golden`, of other sizes, from our own functions.

It proves nothing about the release: it is for testing that the comparison assumes no sizes.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mirage_jax.diffusion import solvers
from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.autoencoder import params_to_release
from mirage_jax.models.convert.denoiser import denoiser_to_release
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout

DENOISER = {
    "dim": 36, "num_heads": 3, "num_layers": 3, "ffn_dim": 40, "text_dim": 20, "freq_dim": 64,
    "patch_size": [1, 1, 2], "in_dim": 6, "out_dim": 6, "vace_layers": [1], "vace_in_dim": 12,
    "eps": 1e-5,
}  # fmt: skip
AUTOENCODER = {
    "dim": 4, "dec_dim": 6, "z_dim": 6, "dim_mult": [1, 2, 2], "num_res_blocks": 1,
    "temporal_downsample": [True, False],
}  # fmt: skip


def write_other_sizes(directory: Path) -> None:
    """Write the denoiser, autoencoder, solver and loss files."""
    rng = np.random.default_rng(0)
    _write_denoiser(directory, rng)
    _write_autoencoder(directory, rng)
    _write_solver(directory, rng)
    _write_loss(directory, rng)


def random_params(config, rng) -> functional.Params:
    """Draw parameters that leave nothing at zero."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.standard_normal(leaf.shape), jnp.float32),
        functional.abstract_params(config),
    )


def _normal(rng, *shape) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _write_denoiser(directory: Path, rng) -> None:
    given = DENOISER
    config = DenoiserConfig(
        given["in_dim"], given["out_dim"], given["dim"], given["num_heads"], given["num_layers"],
        given["ffn_dim"], given["text_dim"], given["freq_dim"], tuple(given["patch_size"]),
        tuple(given["vace_layers"]), given["vace_in_dim"], given["eps"],
    )  # fmt: skip
    params, layout = random_params(config, rng), FrameLayout(1, 3, 1)
    x, scene = _normal(rng, 1, 6, 5, 3, 4), _normal(rng, 12, 4, 3, 4)
    text, timestep = _normal(rng, 1, 5, 20), np.float32([0, 0, 700, 13, 0])
    inputs = np.moveaxis(x, 1, -1), timestep[None], np.moveaxis(scene, 0, -1)[None], text
    arrays = {"x": x, "scene": scene, "ctx": text, "t": timestep}
    arrays |= dict(zip("RTP", (1, 3, 1), strict=True))
    for name, condition in (("out", inputs[2]), ("out_nomem", None)):
        run = inputs[0], inputs[1], condition, inputs[3], layout
        out = functional.apply(config, params, *run, method="every_frame")
        arrays[name] = np.moveaxis(np.asarray(out), -1, 1)
    np.savez(directory / "denoiser.npz", **{f"other_{name}": a for name, a in arrays.items()})
    (directory / "denoiser.json").write_text(json.dumps(given))
    tensors = denoiser_to_release(params, config)
    branch = {name: value for name, value in tensors.items() if name.startswith("vace_")}
    save_file(branch, directory / "vace.safetensors")
    save_file({n: v for n, v in tensors.items() if n not in branch}, directory / "dit.safetensors")


def _write_autoencoder(directory: Path, rng) -> None:
    given = AUTOENCODER
    config = AutoencoderConfig(
        given["z_dim"], given["dim"], given["dec_dim"], tuple(given["dim_mult"]),
        given["num_res_blocks"], tuple(given["temporal_downsample"]),
    )  # fmt: skip
    params = random_params(config, rng)
    params["latent_std"] = 1 + jnp.abs(params["latent_std"])
    video = _normal(rng, 1, 3, 3, 16, 8)
    latents = functional.apply(config, params, np.moveaxis(video, 1, -1), method="encode")
    decoded = functional.apply(config, params, latents, method="decode")
    arrays = {"x3": video, "mean": params["latent_mean"], "std": params["latent_std"]}
    arrays |= {"z3": np.moveaxis(latents, -1, 1), "y3": np.moveaxis(decoded, -1, 1)}
    np.savez(directory / "vae.npz", **arrays)
    (directory / "vae.json").write_text(json.dumps(given))
    save_file(params_to_release(config, params), directory / "vae.safetensors")


def _write_solver(directory: Path, rng) -> None:
    start, drift = _normal(rng, 2, 3), _normal(rng, 2, 3)
    plan = solvers.schedule(7, 2.5, integer_timesteps=True)
    path = solvers.sample_path(
        lambda x, sigma, timestep: jnp.tanh(0.7 * x + drift * timestep / 1000),
        jnp.asarray(start),
        plan,
    )
    arrays = {"x0": start, "a": drift, "t": plan.timesteps, "sigmas": plan.sigmas, "traj": path}
    np.savez(directory / "unipc.npz", **{f"s7_2.5_{name}": a for name, a in arrays.items()})


def _write_loss(directory: Path, rng) -> None:
    x, noise, prediction = (_normal(rng, 3, 5, 6, 2, 3) for _ in range(3))
    u = rng.uniform(size=6).astype(np.float32)
    sigma = 5 * u / (1 + 4 * u) * (np.arange(6) > 0)
    shape = (1, 1, 6, 1, 1)
    noisy = (1 - sigma.reshape(shape)) * x + sigma.reshape(shape) * noise
    loss = np.square(prediction - (noise - x))[:, :, 1:].mean()
    np.savez(
        directory / "flow_loss.npz",
        u=u, sigma=sigma, timestep=1000 * sigma, x=x, noise=noise, noisy=noisy, pred=prediction,
        loss=loss,
    )  # fmt: skip
