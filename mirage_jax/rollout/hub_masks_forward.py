"""Runs a segmentation model of Hugging Face: a script for a process of its own.

    python hub_masks_forward.py MODEL DEVICE

Reads one JSON line for each request from standard input, {"frames": FILE, "out": FILE}: frames is
uint8 [f, H, W, 3], out becomes int32 [f, H, W], the number of each pixel's label. Answers each with
one JSON line; the first line names the labels. This file imports torch. It is never imported, only
run, by `hub_masks.py`: torch stays out of every process of ours.

Models of semantic segmentation (SegFormer and its like). Weights are read from safetensors only; no
code of a model's own is run.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation


def main(name: str, device: str) -> None:
    """Load the model, say so, and answer until the input ends."""
    # Libraries may print: only answers go to the parent.
    answers, sys.stdout = sys.stdout, sys.stderr
    processor = AutoImageProcessor.from_pretrained(name)
    model = AutoModelForSemanticSegmentation.from_pretrained(name, use_safetensors=True)
    model = model.eval().to(device)
    labels = {int(number): str(label) for number, label in model.config.id2label.items()}
    _answer(answers, {"labels": labels, "model_type": model.config.model_type})
    for line in sys.stdin:
        request = json.loads(line)
        frames = np.load(request["frames"], allow_pickle=False)
        with torch.inference_mode():
            found = [_labels(processor, model, frame) for frame in frames]
        np.save(request["out"], np.stack(found).astype(np.int32))
        _answer(answers, {"frames": len(found)})


def _labels(processor, model, frame: np.ndarray) -> np.ndarray:
    """Return the labels [H, W] of one picture, at its size."""
    inputs = processor(images=frame, return_tensors="pt").to(model.device)
    outputs = model(pixel_values=inputs["pixel_values"])
    sizes = [frame.shape[:2]]
    found = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    return found[0].cpu().numpy()


def _answer(stream, values: dict) -> None:
    stream.write(json.dumps(values) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
