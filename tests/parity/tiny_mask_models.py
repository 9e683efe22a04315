"""Makes tiny segmentation models of random weights and runs them: a script for a Python with torch.

    python tiny_mask_models.py FOLDER FRAMES.npy

FOLDER gets one folder for each model, as `save_pretrained` writes them, and in each `expected.npy`:
for every pixel of the frames the number of the label whose mask, as the image-segmentation pipeline
of Transformers gives them, holds it; -1 for none.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)

SIDE = 64
LABELS = {0: "wall", 1: "person", 2: "sky-other-merged", 3: "floor", 4: "car", 5: "teddy bear"}
NAMES = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}


def segformer():
    """Return a SegFormer of some thousand parameters, and its processor."""
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **NAMES,
    )
    processor = SegformerImageProcessor(size={"height": SIDE, "width": SIDE})
    return SegformerForSemanticSegmentation(config), processor


def _varied(make, picture: np.ndarray):
    """Return the first random model that sees several labels in a picture, and its processor."""
    for seed in range(200):
        torch.manual_seed(seed)
        model, processor = make()
        with torch.no_grad():  # as initialised, one label wins everywhere
            for parameter in model.parameters():
                fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
                parameter.normal_(std=2.0 * fan_in**-0.5)
            inputs = processor(images=picture, return_tensors="pt")
            outputs = model.eval()(pixel_values=inputs["pixel_values"])
        sizes = [picture.shape[:2]]
        found = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)[0]
        if len(np.unique(found.numpy())) > 2:
            return model, processor
    raise RuntimeError("no random model saw several labels")


def main(folder: Path, frames: Path) -> None:
    """Write every model and what the pipeline says."""
    pictures = np.load(frames, allow_pickle=False)
    for name, make in {"segformer": segformer}.items():
        model, processor = _varied(make, pictures[0])
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        run = pipeline("image-segmentation", model=str(folder / name), device="cpu")
        said = np.full(pictures.shape[:3], -1)
        for index, picture in enumerate(pictures):
            for part in run(Image.fromarray(picture), subtask="semantic"):
                number = NAMES["label2id"][part["label"]]
                said[index][np.asarray(part["mask"]) > 0] = number
        np.save(folder / name / "expected.npy", said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
