"""The config of the drill: a codec of a few thousand parameters on a procedural world.

Its steps take milliseconds and its checkpoints are frequent, so that disturbances hit something.
"""

STAGE = {
    "steps": 120,
    "batch": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 4,
    "ema_decay": 0.0,  # what is exported are the parameters themselves
    "log_steps": 20,
    "checkpoint_steps": 10,
    "validate_steps": 1000,
    "validation_clips": 1,
    "crop_frames": 5,
    "crop_height": 16,
    "crop_width": 16,
    "pca_clips": 16,
}


def get_config(variant: str = "") -> dict:
    """Return the values; the variant is the number of steps."""
    return {
        "name": "drill",
        "seed": 3,
        "data": {
            "source": "procedural",
            "height": 16,
            "width": 16,
            "num_clips": 2,
            "clip_frames": 17,
        },
        "mesh": {"whole_below": 0},  # small as they are, parameters are divided
        "codec": {"latent_channels": 8, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1},
        "depth_head": {"latent_channels": 8},
        "denoiser": {"latent_channels": 8, "out_channels": 8, "condition_channels": 20},
        "memory": {"capacity": 64, "channels": 8},
        "codec_train": {**STAGE, "steps": int(variant or STAGE["steps"])},
    }
