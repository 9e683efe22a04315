"""Makes tiny depth models of random weights and runs them: a script for a Python with torch.

    python tiny_depth_models.py FOLDER FRAMES.npy

FOLDER gets one folder for each model, as `save_pretrained` writes them, and in each `expected.npy`:
what the image-to-depth pipeline of Transformers says of the frames.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    pipeline,
)

SIDE = 56  # four patches of 14


def depth_anything(kind: str):
    """Return a DepthAnything of some thousand parameters; `kind` is "metric" or "relative"."""
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    return DepthAnythingForDepthEstimation(config), 14


def dpt():
    """Return a DPT of some thousand parameters."""
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=14,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return DPTForDepthEstimation(config), 14


MODELS = {
    "metric": lambda: depth_anything("metric"),
    "relative": lambda: depth_anything("relative"),
    "dpt": dpt,
}


def main(folder: Path, frames: Path) -> None:
    """Write every model and what the pipeline says."""
    pictures = np.load(frames, allow_pickle=False)
    for seed, (name, make) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model, patch = make()
        with torch.no_grad():  # as initialised, the output hardly depends on the picture
            for parameter in model.parameters():
                fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
                parameter.normal_(std=1.5 * fan_in**-0.5)
        processor = DPTImageProcessor(
            size={"height": SIDE, "width": SIDE},
            keep_aspect_ratio=name != "dpt",  # which takes squares only
            ensure_multiple_of=patch,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        run = pipeline("depth-estimation", model=str(folder / name), device="cpu")
        said = [run(Image.fromarray(picture))["predicted_depth"] for picture in pictures]
        np.save(folder / name / "expected.npy", torch.stack(said).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
