"""Runs a depth model of Hugging Face: a script for a process of its own.

    python hub_depth_forward.py MODEL DEVICE

Reads one JSON line for each request from standard input, {"frames": FILE, "out": FILE}: frames is
uint8 [f, H, W, 3], out becomes float32 [f, H, W]. Answers each with one JSON line; the first line
says what the values are. This file imports torch. It is never imported, only run, by
`hub_depth.py`: torch stays out of every process of ours.

Conventions: "metric" values are z-depth in metres; "relative" ones are disparity: larger is nearer,
scale and shift unknown. Weights are read from safetensors only; no code of a model's own is run.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

_METRIC = {"zoedepth", "glpn", "depth_pro", "prompt_depth_anything"}
_RELATIVE = {"dpt"}


def main(name: str, device: str) -> None:
    """Load the model, say so, and answer until the input ends."""
    # Libraries may print: only answers go to the parent.
    answers, sys.stdout = sys.stdout, sys.stderr
    processor = AutoImageProcessor.from_pretrained(name)
    model = AutoModelForDepthEstimation.from_pretrained(name, use_safetensors=True)
    model = model.eval().to(device)
    _answer(answers, {"kind": _kind(model.config), "model_type": model.config.model_type})
    for line in sys.stdin:
        request = json.loads(line)
        frames = np.load(request["frames"], allow_pickle=False)
        with torch.inference_mode():
            depth = [_depth(processor, model, frame) for frame in frames]
        np.save(request["out"], np.stack(depth).astype(np.float32))
        _answer(answers, {"frames": len(depth)})


def _kind(config) -> str | None:
    if config.model_type in _METRIC:
        return "metric"
    if config.model_type in _RELATIVE:
        return "relative"
    return getattr(config, "depth_estimation_type", None)


def _depth(processor, model, frame: np.ndarray) -> np.ndarray:
    """Return the model's values [H, W] for one picture, at its size."""
    inputs = processor(images=frame, return_tensors="pt").to(model.device)
    outputs = model(**inputs)
    size = [frame.shape[:2]]
    wanted = {"target_sizes": size}
    if model.config.model_type == "zoedepth":  # takes its padding off again
        wanted = {"source_sizes": size}
    found = processor.post_process_depth_estimation(outputs, **wanted)
    return found[0]["predicted_depth"].float().cpu().numpy()


def _answer(stream, values: dict) -> None:
    stream.write(json.dumps(values) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
