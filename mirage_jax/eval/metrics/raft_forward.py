"""Runs torchvision's RAFT: a script for a process of its own.

    python raft_forward.py WEIGHTS

Reads one JSON line for each request from standard input, {"frames": FILE, "out": FILE}: frames is
uint8 [2, n, H, W, 3] with H and W multiples of 8 and at least 128, out becomes float32
[n, H, W, 2], the flow from the first to the second pictures in pixels. Answers each with one JSON
line; the first line says which network it is and whether the file is one of torchvision's own,
whose names end with the first digits of their SHA-256. This file imports torch. It is never
imported, only run, by `raft.py`: torch stays out of every process of ours.

Weights are read as tensors only (`weights_only`); no code of a file is run.
"""

import hashlib
import json
import re
import sys

import numpy as np
import torch
from torchvision.models import optical_flow

_NETS = {
    "raft_large": (optical_flow.raft_large, optical_flow.Raft_Large_Weights),
    "raft_small": (optical_flow.raft_small, optical_flow.Raft_Small_Weights),
}
_PAIRS = 4


def main(path: str) -> None:
    """Load the weights, say so, and answer until the input ends."""
    # Libraries may print: only answers go to the parent.
    answers, sys.stdout = sys.stdout, sys.stderr
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, model = _load(path)
    model = model.eval().to(device)
    digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
    _answer(answers, {"net": net, "true": digest[:8] in _published(net), "sha256": digest})
    for line in sys.stdin:
        request = json.loads(line)
        first, second = np.load(request["frames"], allow_pickle=False)
        with torch.inference_mode():
            made = [
                _flow(model, first[i : i + _PAIRS], second[i : i + _PAIRS], device)
                for i in range(0, len(first), _PAIRS)
            ]
        np.save(request["out"], np.concatenate(made))
        _answer(answers, {"pairs": len(first)})


def _load(path: str):
    """Return the network that a file is of, with its weights."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    reasons = []
    for name, (make, _) in _NETS.items():
        model = make(weights=None)
        try:
            model.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            reasons.append(f"{name}: {str(error).splitlines()[0]}")
        else:
            return name, model
    raise ValueError(f"not weights of torchvision's RAFT ({'; '.join(reasons)})")


def _published(net: str) -> set[str]:
    """Return the digits that the files of torchvision's own weights end with."""
    urls = (weights.url for weights in _NETS[net][1])
    return {found[1] for url in urls if (found := re.search(r"-([0-9a-f]{8})\.pth$", url))}


def _flow(model, first: np.ndarray, second: np.ndarray, device: str) -> np.ndarray:
    pair = [
        torch.from_numpy(frames).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1.0
        for frames in (first, second)
    ]
    return model(*pair)[-1].permute(0, 2, 3, 1).float().cpu().numpy()


def _answer(stream, values: dict) -> None:
    stream.write(json.dumps(values) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1])
