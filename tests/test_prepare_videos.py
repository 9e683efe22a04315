"""Videos without cameras: an estimator is run once a video, or what is missing is said.

ViPE needs a GPU and gigabytes of weights; the executable here stands in for it. It is called as
ViPE is and writes what ViPE writes: rgb/, pose/, intrinsics/ and depth/, named by the video.
"""

import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import recorded_folders as folders
from click.testing import CliRunner

from mirage_jax.cli.main import cli
from mirage_jax.data.source import open_clips

STAND_IN = """#!{python}
import pathlib, shutil, sys
command, video, flag, out = sys.argv[1:]
assert (command, flag) == ("infer", "-o"), sys.argv
stem = pathlib.Path(video).stem
print(stem, file=open({calls!r}, "a"))
if stem == "dark":
    sys.exit("no features were found")
truth, out = pathlib.Path({truth!r}), pathlib.Path(out)
for name, ending in (("pose", "npz"), ("intrinsics", "npz"), ("depth", "zip")):
    (out / name).mkdir()
    shutil.copy(truth / f"{{name}}.{{ending}}", out / name / f"{{stem}}.{{ending}}")
(out / "rgb").mkdir()
shutil.copy(video, out / "rgb" / f"{{stem}}.mp4")
"""


def write_video(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def clip() -> dict:
    return folders.make_clip()


@pytest.fixture
def vipe(clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in on PATH; return the file with one line a call."""
    folders.write_vipe(tmp_path / "truth", clip)
    calls, tool = tmp_path / "calls", tmp_path / "bin" / "vipe"
    tool.parent.mkdir()
    text = STAND_IN.format(python=sys.executable, calls=str(calls), truth=str(tmp_path / "truth"))
    tool.write_text(text)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    return calls


def run(*arguments: object):
    size = ["--height", "48", "--width", "64", "--frames", "9", "--split", "train"]
    return CliRunner().invoke(cli, ["prepare", *map(str, arguments), *size])


def test_a_video_is_prepared_end_to_end(clip, vipe: Path, tmp_path: Path):
    write_video(tmp_path / "walk.mp4", clip["rgb"])
    for _ in range(2):
        result = run(tmp_path / "walk.mp4", "--out", tmp_path / "out")
        assert result.exit_code == 0, result.output
    # The second time nothing is estimated again.
    assert vipe.read_text().split() == ["walk"]
    (got,) = [open_clips(tmp_path / "out", "train")[0]]
    assert np.abs(got["rgb"].astype(int) - clip["rgb"]).mean() < 1.5
    np.testing.assert_allclose(got["depth"], clip["depth"], atol=5e-3)
    np.testing.assert_allclose(got["cam_to_world"], clip["cam_to_world"], atol=1e-5)


def test_of_several_videos_those_that_fail_are_quarantined(clip, vipe: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a", "dark"):
        write_video(tmp_path / "in" / f"{name}.mp4", clip["rgb"])
    whole = (tmp_path / "in" / "a.mp4").read_bytes()
    (tmp_path / "in" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    result = run(tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    reasons = {entry["recording"]: entry["reason"] for entry in map(json.loads, lines)}
    assert set(reasons) == {"dark", "cut"}
    assert "exit code 1: no features were found" in reasons["dark"]
    assert "cut.mp4: cannot be read as a video" in reasons["cut"]
    assert len(open_clips(tmp_path / "out", "train")) == 1
    result = run(tmp_path / "in" / "dark.mp4", "--out", tmp_path / "other")
    assert result.exit_code == 2
    assert "no features were found" in result.output


def test_without_the_tool_the_missing_steps_are_said(
    clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_video(tmp_path / "walk.mp4", clip["rgb"])
    result = run(tmp_path / "walk.mp4", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "vipe, which estimates both, is not on PATH" in result.output
    assert "pip install nvidia-vipe" in result.output
    assert not (tmp_path / "out").exists()
    (tmp_path / "walk.txt").write_text("hello")
    result = run(tmp_path / "walk.txt", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is no video" in result.output


def test_a_tool_that_writes_something_else_is_named(clip, vipe: Path, tmp_path: Path):
    shutil.copy("/bin/true", tmp_path / "bin" / "vipe")
    write_video(tmp_path / "walk.mp4", clip["rgb"])
    result = run(tmp_path / "walk.mp4", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "wrote no pose/walk" in result.output
