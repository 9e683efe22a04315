"""The 14-billion-parameter family of Wan with a latent memory, beside the autoencoder of Wan2.1.

    mirage train --config configs/wan14b.py:release --stage branch \
        --weights worlds/wan14b --workdir runs/wan14b

Frames are 480x832 pixels, the smaller of the two sizes these models are made for: 60x104 cells of
8 pixels and 16 channels, 1560 tokens a latent frame. For the larger one set `data.height` to 720
and `data.width` to 1280 (3600 tokens).

Variants as in `configs/wan5b.py`, whose conventions and recipes hold here too: neither release nor
paper trained this size.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

wan5b = runpy.run_path(str(Path(__file__).with_name("wan5b.py")))


def get_config(variant: str = "release") -> ConfigDict:
    """Return the values of one variant."""
    config = wan5b["get_config"](variant)
    config.name = f"wan14b_{variant}"
    config.data.update(height=480, width=832)
    config.codec.update(
        latent_channels=16, encoder_width=96, decoder_width=96, patch=1, shortcuts=False
    )
    config.denoiser.update(latent_channels=16, out_channels=16)
    config.denoiser.update(width=5120, heads=40, layers=40, mlp_width=13824)
    config.memory.update(channels=16, capacity=524_288)  # nine chunks without any merging
    wan5b["set_branch"](config, variant)
    return config
