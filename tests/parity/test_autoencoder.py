"""Both autoencoders, whole and in pieces, against `AutoencoderKLWan`.

Diffusers always works group by group; it cuts decoded pixels to [-1, 1], which ours are here as
well, and does not normalise latents.
"""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from mirage_jax.models import functional  # noqa: E402
from mirage_jax.models.autoencoder import AutoencoderConfig  # noqa: E402
from tests.parity.counterparts import autoencoder_pair, to_ours, to_theirs  # noqa: E402


def drawn_config(random: np.random.Generator, family: str) -> AutoencoderConfig:
    """Draw sizes; time is halved twice, as Diffusers takes four frames a group whatever it says."""
    wan22 = family == "wan22"
    widths = np.sort(2 ** random.integers(0, 3, 4))
    time = [(True, True), (False, True, True), (True, True, False)][random.integers(3)]
    return AutoencoderConfig(
        latent_channels=int(random.integers(2, 7)),
        encoder_width=8 * int(random.integers(1, 3)),
        decoder_width=8 * int(random.integers(1, 3)),
        multipliers=(*(int(m) for m in widths[: len(time)]), int(widths[len(time) - 1])),
        blocks=int(random.integers(1, 3)),
        temporal_downsample=time,
        patch=2 if wan22 else 1,
        shortcuts=wan22,
    )


@pytest.mark.parametrize("family", ["wan22", "wan21"])
def test_encoding_and_decoding_equal_diffusers_whole_and_in_pieces(random, family, compare):
    config = drawn_config(random, family)
    pair = autoencoder_pair(config)
    stride = config.spatial_stride
    frames = 1 + config.temporal_stride * int(random.integers(0, 4))
    shape = (int(random.integers(1, 3)), frames, *stride * random.integers(1, 4, size=2), 3)
    video = random.uniform(-1, 1, shape).astype(np.float32)
    with torch.no_grad():
        posterior = pair.theirs.encode(to_theirs(video)).latent_dist
        decoded = to_ours(pair.theirs.decode(posterior.mode()).sample)
    latents = to_ours(posterior.mode())

    def run(method, x):
        call = jax.jit(lambda params, x: functional.apply(config, params, x, method=method))
        return np.asarray(call(pair.params, x))

    for mode in ("", "_streamed"):
        compare(f"encode{mode}", run(f"encode{mode}", video), latents, shape, config)
        pixels = np.clip(run(f"decode{mode}", latents), -1, 1)
        # Norms over few channels divide by lengths near 0, which magnifies rounding.
        compare(f"decode{mode}", pixels, decoded, shape, config, within=1e-4)
    log_variance = np.clip(run("moments", video)[1], -30, 20)
    compare("log variance", log_variance, to_ours(posterior.logvar), shape, config)
