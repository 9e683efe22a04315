"""A world of textured boxes, made as it goes: for tests, notebooks and a first look.

    mirage train --config configs/procedural.py --stage codec --workdir runs/boxes
    mirage train --config configs/procedural.py --stage depth --workdir runs/boxes
    mirage train --config configs/procedural.py --stage denoiser --workdir runs/boxes

Needs no data. The models are far too small to be good; each stage takes a few minutes on two CPU
cores (unmeasured).
"""

from ml_collections import ConfigDict


def get_config(variant: str = "tiny") -> ConfigDict:
    """Return the values of the only variant, `tiny`."""
    if variant != "tiny":
        raise ValueError(f"configs/procedural.py: got variant {variant!r}, expected tiny")
    config = ConfigDict()
    config.name = "boxes_tiny"
    config.seed = 0
    config.data = {
        "source": "procedural",
        "height": 32,
        "width": 48,
        "num_clips": 8,
        "clip_frames": 33,
    }
    config.codec = {"latent_channels": 16, "width": 32, "encoder_blocks": 1, "decoder_blocks": 2}
    config.depth_head = {"latent_channels": 16, "width": 16, "blocks": 1}
    config.denoiser = {
        "latent_channels": 16,
        "out_channels": 16,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "mlp_width": 64,
        "branch_layers": (0,),
        "condition_channels": 28,
        "time_frequencies": 32,
        "prediction": "clean",
    }
    config.learned_read = {"latent_channels": 16, "width": 16, "blocks": 1}
    config.memory = {
        "capacity": 4096,
        "channels": 16,
        "select": "best_view",
        "write_where": "unseen",
    }
    config.sampling = {"steps": 2}
    stage = {"steps": 500, "batch": 4, "warmup_steps": 20, "validation_clips": 4}
    config.codec_train = {**stage, "crop_height": 32, "crop_width": 48, "pca_clips": 64}
    config.depth_train = {**stage, "windows": {"memory_frames": 2}}
    # Two first chunks and two later ones, so that two devices can divide both along fsdp.
    config.denoiser_train = {**stage, "windows": {"memory_frames": 2, "first_fraction": 0.5}}
    return config
