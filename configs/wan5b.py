"""Wan2.2-TI2V-5B with a latent memory: released weights, and their fine-tuning.

    mirage train --config configs/wan5b.py:release --stage branch \
        --weights worlds/wan5b --workdir runs/wan5b
    mirage train --config configs/wan5b.py:release --stage lora \
        --weights worlds/wan5b --workdir runs/wan5b

`worlds/wan5b` holds converted weights. `--stage full` trains every parameter of them, `--stage
denoiser` one drawn from scratch. Frames are 704x1280 pixels: 44x80 cells of 16 pixels and 48
channels, 880 tokens a latent frame.

Variants: `release` does what the public release does, in its memory's conventions, so that its
weights give its numbers; `paper` does what the paper states. Where the paper is silent (steps,
warm-up, how memory is drawn in training), `paper` takes what this project's own worlds do.
"""

from ml_collections import ConfigDict

VARIANTS = ("release", "paper")


def get_config(variant: str = "release") -> ConfigDict:
    """Return the values of one variant."""
    if variant not in VARIANTS:
        raise ValueError(f"Wan config: got variant {variant!r}, expected one of {VARIANTS}")
    config = ConfigDict()
    config.name = f"wan5b_{variant}"
    config.seed = 0
    config.data = {
        "source": "recorded",
        "directory": "data/video",
        "height": 704,
        "width": 1280,
        "clip_frames": 81,
        "texts": "data/video_texts",  # of `mirage encode text`: every caption
    }
    config.codec = {  # the autoencoder of Wan2.2
        "latent_channels": 48,
        "encoder_width": 160,
        "decoder_width": 256,
        "multipliers": (1, 2, 4, 4),
        "blocks": 2,
        "temporal_downsample": (False, True, True),
        "patch": 2,
        "shortcuts": True,
    }
    config.depth_head = None
    config.learned_read = None
    config.denoiser = {
        "latent_channels": 48,
        "out_channels": 48,
        "width": 3072,
        "heads": 24,
        "layers": 30,
        "mlp_width": 14336,
        "text_width": 4096,
        "prediction": "velocity",
        "dtype": "bfloat16",
        "remat": "full",
    }
    config.chunk = {
        "latent_frames": 9,
        "preceding": 2,
        "temporal_stride": 4,
        "references": {"most": 4},
        "write": {"start": "single", "depth": "bilinear"},
    }
    config.memory = {"capacity": 262_144, "channels": 48}  # nine chunks without any merging
    {"release": _as_released, "paper": _as_in_the_paper}[variant](config)
    return config


def set_branch(config: ConfigDict, variant: str) -> None:
    """Place the memory branch beside the backbone and say what it is told.

    The release adds a hint after every second block and tells the branch, beside the tokens, a
    constant of as many channels; the paper after every fourth, and the visibility mask.
    """
    channels, layers = config.denoiser.latent_channels, config.denoiser.layers
    told = {"tokens": True, "depth": False, "rays": False, "geometry": False, "holes": "zero"}
    if variant == "release":
        config.denoiser.branch_layers = tuple(range(0, layers, 2))
        config.denoiser.condition_channels = 2 * channels
        config.condition = {**told, "visibility": False, "score": channels}
    else:
        config.denoiser.branch_layers = tuple(range(0, layers, 4))
        config.denoiser.condition_channels = channels + 1
        config.condition = {**told, "visibility": True, "score": 0}


def _as_released(config: ConfigDict) -> None:
    set_branch(config, "release")
    config.memory.update(half_cell=False, rounding="nearest_even", moved_margin=0.0)
    config.chunk.update(preceding_reads="kept", last="short", decode="alone")
    config.chunk.write.update(start_twice=True, masks="start")
    config.sampling = {"steps": 20, "shift": 5.0, "solver": "unipc", "integer_timesteps": True}
    recipe = {
        "steps": 10_000,
        "batch": 4,
        "learning_rate": 1e-5,
        "warmup_steps": 0,
        "final_fraction": 1.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 1e-2,
        # Memory of the first target frame alone, as it is: all that the release trains with.
        "windows": {
            "memory_frames": 1,
            "memory_off": 0.0,
            "still_fraction": 0.0,
            "text_dropout": 0.1,
        },
        "noise": {"token": 0.0, "frame_depth": 0.0, "cell_depth": 0.0, "context": 0.0},
    }
    _set_stages(config, recipe, lora_rate=1e-5, branch_start="fresh")


def _as_in_the_paper(config: ConfigDict) -> None:
    set_branch(config, "paper")
    config.sampling = {"steps": 40, "shift": 5.0, "solver": "unipc"}
    recipe = {
        "steps": 10_000,
        "batch": 64,
        "learning_rate": 1e-5,
        "warmup_steps": 100,
        "final_fraction": 0.0,
        "beta1": 0.0,
        "beta2": 0.999,
        "weight_decay": 1e-3,
        "windows": {"memory_frames": 6, "text_dropout": 0.2},
    }
    _set_stages(config, recipe, lora_rate=1e-4, branch_start="copy")


def _set_stages(config: ConfigDict, recipe: dict, lora_rate: float, branch_start: str) -> None:
    """Set the two stages, and the training of all parameters, given or drawn."""
    recipe = {
        **recipe,
        "ema_decay": 0.0,
        "clip_norm": 1.0,
        "fixed_dtype": "bfloat16",
        "flow": {"shift": 5.0, "shared_fraction": 0.0},
        "validation_clips": 4,
    }
    config.branch_train = {**recipe, "branch_start": branch_start}
    config.lora_train = {**recipe, "learning_rate": lora_rate, "lora": {"rank": 32, "alpha": 32.0}}
    config.full_train = {**recipe, "branch_start": branch_start}
    config.denoiser_train = {**recipe, "learning_rate": 1e-4}
