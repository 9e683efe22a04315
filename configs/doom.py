"""A world learnt from Freedoom, played through ViZDoom.

    mirage record doom --out data/doom --split train
    mirage record doom --out data/doom --split val
    mirage train --config configs/doom.py:tiny --stage codec --workdir runs/doom_tiny
    mirage train --config configs/doom.py:tiny --stage depth --workdir runs/doom_tiny
    mirage train --config configs/doom.py:tiny --stage denoiser --workdir runs/doom_tiny

Variants: `tiny` (96x128 pixels, trained on two CPU cores; the shipped weights) and `base` (the same
world for an accelerator; unmeasured).
"""

from ml_collections import ConfigDict


def get_config(variant: str = "tiny") -> ConfigDict:
    """Return the values of one variant."""
    if variant not in ("tiny", "base"):
        raise ValueError(f"configs/doom.py: got variant {variant!r}, expected tiny or base")
    config = ConfigDict()
    config.name = f"doom_{variant}"
    config.seed = 0
    config.data = dict(source="recorded", directory="data/doom", height=96, width=128)
    config.codec = dict(latent_channels=48, spatial_stride=8, temporal_stride=4)
    config.codec_train = dict(steps=10_000, batch=4, learning_rate=5e-4, warmup_steps=100)
    if variant == "base":
        config.codec.update(width=384, encoder_blocks=4, decoder_blocks=8)
        config.codec_train.update(
            steps=100_000, batch=32, crop_frames=17, crop_height=96, crop_width=128
        )
    return config
