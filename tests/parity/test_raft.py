"""RAFT in its own process says what torchvision says, and bears its name with its own weights only.

The weights are random: whether flow is good is no part of this. Runs where this Python, or the one
that MIRAGE_TORCH_PYTHON names, has torch and torchvision.
"""

import dataclasses
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tiny_world import tiny_world, wall_clip

from mirage_jax.eval.judges import Nets
from mirage_jax.eval.metrics.raft import Raft
from mirage_jax.eval.protocols import Protocol, Setting, list_items
from mirage_jax.eval.run_protocol import RunOptions, run_protocols

HW = (24, 40)
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (2, 3, *HW, 3), dtype=np.uint8)
# Random weights answer small values; larger ones of the last layer make them tell apart.
_SCRIPT = """
import sys
import numpy as np
import torch
from torchvision.models.optical_flow import raft_large, raft_small

folder = sys.argv[1]
torch.manual_seed(0)
first, second = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in np.load(folder + "/large.npy"))
for make in (raft_small, raft_large):
    model = make(weights=None).eval()
    with torch.no_grad():
        flow = model(first / 127.5 - 1, second / 127.5 - 1)[-1].permute(0, 2, 3, 1)
    torch.save(model.state_dict(), f"{folder}/{make.__name__}.pth")
    np.save(f"{folder}/{make.__name__}.npy", flow.numpy())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with weights of both sizes, and what torchvision answers for `PICTURES`."""
    python = os.environ.get("MIRAGE_TORCH_PYTHON") or sys.executable
    have = subprocess.run([python, "-c", "import torch, torchvision"], capture_output=True)
    if have.returncode:
        pytest.skip("needs torch and torchvision; make parity, or set MIRAGE_TORCH_PYTHON")
    folder = tmp_path_factory.mktemp("raft")
    # The shorter side has 128 pixels at least: 24 * 6 and 40 * 6 are multiples of 8.
    large = [
        [cv2.resize(x, (240, 144), interpolation=cv2.INTER_CUBIC) for x in side]
        for side in PICTURES
    ]
    np.save(folder / "large.npy", np.array(large))
    subprocess.run([python, "-c", _SCRIPT, str(folder)], check=True)
    return folder


@pytest.mark.parametrize("size", ["raft_small", "raft_large"])
def test_flow_is_torchvisions_and_other_weights_have_no_name_of_raft(folder, size):
    expected = np.load(folder / f"{size}.npy")
    assert expected.std() > 1e-3
    expected = expected.reshape(3, HW[0], 6, HW[1], 6, 2).mean(axis=(2, 4)) / 6
    raft = Raft(folder / f"{size}.pth")
    try:
        np.testing.assert_allclose(raft(*PICTURES), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            raft(*PICTURES[:, :1]), expected[:1], rtol=1e-3, atol=1e-4
        )  # the process stays
        assert raft.name == "net"
        assert raft.checksum.startswith(f"{size}-")
    finally:
        raft.close()


def test_protocols_measure_with_it_in_the_processes_that_score(folder, tmp_path):
    raft = Raft(folder / "raft_small.pth")
    clips = [wall_clip(9, 0) | {"level": "L"}]
    setting = Setting(items=1, frames=9, batch=1, seeds=(0,), systems=("no_memory",))
    setting = dataclasses.replace(setting, path="static")
    asked = [
        Protocol(name, tuple(list_items(clips)), setting) for name in ("nvs", "motion", "revisit")
    ]
    try:
        options = RunOptions(tmp_path, Nets(raft=raft), workers=1)
        found = run_protocols(tiny_world(), clips, asked, options)
        video = clips[0]["rgb"][:9]
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in video])
        error = np.linalg.norm(
            raft(blurred[:-1], blurred[1:]) - raft(video[:-1], video[1:]), axis=-1
        )
        (record,) = found[1].of_system("truth_blurred")
        assert record.metrics["flow_error_net"] == pytest.approx(error.mean(), rel=1e-3)
        assert error.mean() > 0
        (truth,) = found[1].of_system("truth")
        assert truth.metrics["flow_error_net"] == 0
        (shown,) = found[0].of_system("truth_blurred")
        length = np.linalg.norm(raft(video[[4, 8]], blurred[[4, 8]]), axis=-1)
        assert shown.metrics["displacement_net"] == pytest.approx(
            np.median(length, axis=(1, 2)).mean(), rel=1e-3
        )
        assert "displacement_net" in found[2].of_system("no_memory")[0].metrics
    finally:
        raft.close()


def test_what_is_no_raft_is_refused(folder, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="x.pth: the network did not run"):
        Raft(tmp_path / "x.pth")
    with pytest.raises(ValueError, match="which is no file, expected weights of torchvision's"):
        Raft(tmp_path / "missing.pth")
