"""A world learnt from Freedoom, played through ViZDoom.

    mirage record doom --out data/doom --split train
    mirage record doom --out data/doom --split val
    mirage train --config configs/doom.py:tiny --stage codec --workdir runs/doom_tiny
    mirage train --config configs/doom.py:tiny --stage depth --workdir runs/doom_tiny
    mirage train --config configs/doom.py:tiny --stage denoiser --workdir runs/doom_tiny
    mirage train --config configs/doom.py:tiny --stage read --workdir runs/doom_tiny

Variants: `tiny` (96x128 pixels, trained on two CPU cores; the shipped weights), `base` (the same
world for an accelerator; unmeasured), and `wan21` and `wan22`, whose codecs have the shapes of the
released autoencoders with few channels, for one CPU core: strides, latent channels, causal groups
and shortcuts are those of Wan2.1 and Wan2.2.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "tiny") -> ConfigDict:
    """Return the values of one variant."""
    if variant not in ("tiny", "base", "wan21", "wan22"):
        raise ValueError(
            f"configs/doom.py: got variant {variant!r}, expected tiny, base, wan21 or wan22"
        )
    config = ConfigDict()
    config.name = f"doom_{variant}"
    config.seed = 0
    config.data = {"source": "recorded", "directory": "data/doom", "height": 96, "width": 128}
    _set_models(config)
    _set_stages(config)
    if variant == "base":
        _enlarge(config)
    if variant in _WAN_CODECS:
        _set_wan_codec(config, variant)
    return config


def _set_models(config: ConfigDict) -> None:
    """Set the sizes of the models, the memory, the chunk and the sampler."""
    config.codec = {
        "latent_channels": 48,
        "spatial_stride": 8,
        "temporal_stride": 2,
        "width": 128,
        "encoder_blocks": 2,
        "decoder_blocks": 5,
    }
    config.depth_head = {"latent_channels": 48, "width": 96, "blocks": 4}
    config.condition = {"tokens": True, "visibility": True, "depth": True, "rays": True}
    config.denoiser = {
        "latent_channels": 48,
        "out_channels": 48,
        "width": 192,
        "heads": 4,
        "layers": 6,
        "mlp_width": 576,
        "branch_layers": (0, 2, 4),
        "condition_channels": 60,
        "prediction": "clean",
        "products": "bfloat16",
        "attention": "recomputed",
    }
    config.learned_read = {
        "latent_channels": 48,
        "feature_channels": 6,
        "width": 96,
        "blocks": 4,
        "placed": True,
        "parts": 2,
    }
    config.memory = {
        "capacity": 32768,
        "channels": 48,
        "axes": True,
        "select": "best_view",
        "write_where": "unseen",
    }
    config.chunk = {"latent_frames": 7, "preceding": 2, "temporal_stride": 2}
    config.sampling = {"steps": 2, "shift": 5.0, "solver": "unipc"}


def _set_stages(config: ConfigDict) -> None:
    """Set the stages of training."""
    config.codec_train = {
        "steps": 2000,
        "batch": 6,
        "learning_rate": 4e-4,
        "warmup_steps": 100,
        "still_fraction": 0.1,
        "frozen": ("latent_mean", "latent_std"),
        "validate_steps": 1000,
    }
    config.depth_train = {
        "steps": 500,
        "batch": 8,
        "learning_rate": 1e-3,
        "ema_decay": 0.99,
        "log_steps": 25,
        "warmup_steps": 30,
        "validate_steps": 250,
        "checkpoint_steps": 250,
        "windows": {"memory_frames": 4},
    }
    config.read_train = {
        "steps": 400,
        "batch": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 20,
        "ema_decay": 0.98,
        "log_steps": 20,
        "validate_steps": 100,
        "checkpoint_steps": 50,
        "validation_clips": 8,
        "windows": {"memory_frames": 4, "first_fraction": 0.25, "memory_off": 0.0},
    }
    config.denoiser_train = {
        "steps": 1600,
        "batch": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 50,
        "ema_decay": 0.99,
        "log_steps": 25,
        "validate_steps": 275,
        "checkpoint_steps": 150,
        "flow": {"shift": 5.0, "shared_fraction": 1.0},
        "windows": {"memory_frames": 6, "first_fraction": 0.25, "memory_off": 0.1},
    }


_WAN_CODECS = {
    "wan21": {
        "latent_channels": 16,
        "encoder_width": 8,
        "decoder_width": 8,
        "multipliers": (1, 2, 8, 8),
        "blocks": 1,
        "patch": 1,
        "shortcuts": False,
    },
    "wan22": {
        "latent_channels": 48,
        "encoder_width": 16,
        "decoder_width": 16,
        "multipliers": (1, 2, 8, 8),
        "blocks": 1,
        "patch": 2,
        "shortcuts": True,
    },
}


def _set_wan_codec(config: ConfigDict, variant: str) -> None:
    """Change the values of `tiny` into those of a codec shaped as a released autoencoder."""
    codec = ConfigDict(_WAN_CODECS[variant])
    channels = codec.latent_channels
    config.codec = codec
    config.codec_train.update(
        steps=1500, batch=4, learning_rate=2e-3, crop_height=64, crop_width=64, ema_decay=0.99
    )
    config.codec_train.update(log_steps=25, validate_steps=250, checkpoint_steps=50)
    for model in (config.depth_head, config.learned_read, config.denoiser):
        model.latent_channels = channels
    config.learned_read.update(patch=16 if variant == "wan22" else 8, corrects=False)
    config.denoiser.out_channels = channels
    config.denoiser.condition_channels = channels + 12
    config.memory.channels = channels
    config.chunk.temporal_stride = 4


def _enlarge(config: ConfigDict) -> None:
    """Change the values of `tiny` into those of `base`."""
    config.codec.update(width=384, encoder_blocks=4, decoder_blocks=8)
    config.codec_train.update(
        steps=100_000, batch=32, crop_frames=17, crop_height=96, crop_width=128
    )
    config.depth_head.update(width=256, blocks=8)
    config.denoiser.update(width=1024, heads=16, layers=16, mlp_width=4096, remat="dots")
    config.denoiser.update(dtype="bfloat16", products="plain", attention="auto")
    config.denoiser.branch_layers = (0, 2, 4, 6, 8, 10, 12, 14)
    config.learned_read.update(width=384, blocks=8)
    config.memory.capacity = 131_072
    config.depth_train.update(steps=20_000, batch=32)
    config.read_train.update(steps=20_000, batch=32)
    config.denoiser_train.update(steps=200_000, batch=64, learning_rate=2e-4, warmup_steps=1000)
