"""Recordings of every layout become the clips they were written from, and bad ones are named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_folders as folders
from click.testing import CliRunner
from PIL import Image

from mirage_jax.cli import prepare as prepare_cli
from mirage_jax.cli.main import cli
from mirage_jax.data.clip import ClipShape
from mirage_jax.data.ingest import prepare as prepare_lib
from mirage_jax.data.ingest.checks import fault_of, measure_clip
from mirage_jax.data.ingest.cut import CutConfig, split_of
from mirage_jax.data.ingest.layouts import READERS, find_recordings
from mirage_jax.data.ingest.plan import PrepareConfig
from mirage_jax.data.ingest.prepare import prepare
from mirage_jax.data.ingest.recording import IngestOptions
from mirage_jax.data.source import open_clips, split_names

SHAPE = ClipShape(folders.FRAMES, folders.HEIGHT, folders.WIDTH)
WITHOUT_INTRINSICS = ("tum", "7scenes")


@pytest.fixture(scope="module")
def clip() -> dict:
    return folders.make_clip()


def config(clip: dict | None = None, shape: ClipShape = SHAPE, **more: Any) -> PrepareConfig:
    options = IngestOptions(None if clip is None else clip["intrinsics"])
    cut = CutConfig(shape, more.pop("stride", 1), more.pop("scale", 1.0))
    return PrepareConfig(cut, options=options, **{"split": "train", **more})


@pytest.mark.parametrize("kind", READERS)
def test_every_layout_gives_back_the_clip_it_was_written_from(kind: str, clip, tmp_path: Path):
    folders.WRITERS[kind](tmp_path / "in" / "one", clip)
    assert [found.kind for found in find_recordings(tmp_path / "in")] == [kind]
    given = clip if kind in WITHOUT_INTRINSICS else None
    summary = prepare(tmp_path / "in", tmp_path / "out", config(given))
    assert summary.clips == {"train": 1}
    assert not summary.quarantined
    assert not summary.left_over
    got = open_clips(tmp_path / "out", "train")[0]
    np.testing.assert_array_equal(got["rgb"], clip["rgb"])
    # Whole numbers of depth are rounded to a millimetre.
    np.testing.assert_allclose(got["depth"], clip["depth"], atol=6e-4 + 4e-3)
    np.testing.assert_allclose(got["cam_to_world"], clip["cam_to_world"], atol=1e-5)
    np.testing.assert_allclose(got["intrinsics"], clip["intrinsics"], atol=1e-4)


def test_a_recording_is_cropped_and_resized_with_its_intrinsics(tmp_path: Path):
    large = folders.make_clip(1, frames=4, hw=(96, 160))
    folders.write_geometry(tmp_path / "in", large)
    prepare(tmp_path / "in", tmp_path / "out", config(shape=ClipShape(4, 48, 64)))
    got = open_clips(tmp_path / "out", "train")[0]
    expected = large["intrinsics"] / np.array([[2], [2], [1]], np.float32)
    expected[0, 2] -= 8  # 16 columns of 160 are cut off on either side, at half size
    np.testing.assert_allclose(got["intrinsics"], expected, atol=1e-5)
    area = large["rgb"][:, :, 16:144].reshape(4, 48, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(got["rgb"] - area).mean() < 4
    # Every pixel's depth is that of the scene at its centre, but beside edges.
    from mirage_jax.data.procedural import ProceduralConfig, make_scene, render_view

    small = ProceduralConfig(frames=4, height=48, width=64, moving=False, focal=0.625)
    scene = make_scene(1, ProceduralConfig(frames=81, height=96, width=160, moving=False))
    view = render_view(scene, large["cam_to_world"][2].astype(np.float64), small)
    apart = np.abs(got["depth"][2].astype(np.float64) / view.depth - 1)
    assert np.median(apart) < 1e-3
    assert (apart < 0.02).mean() > 0.97


def test_clips_are_cut_without_losing_count_and_scale_is_applied(clip, tmp_path: Path):
    folders.write_geometry(tmp_path / "in", clip)
    shape = ClipShape(2, 48, 64)
    summary = prepare(tmp_path / "in", tmp_path / "out", config(shape=shape, stride=2, scale=3))
    clips = open_clips(tmp_path / "out", "train")
    assert [c["path"].split("@")[1] for c in clips] == ["0", "4"]
    assert summary.left_over == 9 - 4
    second = clips[1]
    np.testing.assert_array_equal(second["rgb"], clip["rgb"][[4, 6]])
    np.testing.assert_allclose(
        second["cam_to_world"][:, :3, 3], 3 * clip["cam_to_world"][[4, 6], :3, 3], rtol=1e-6
    )
    np.testing.assert_allclose(second["depth"], 3 * clip["depth"][[4, 6]], rtol=1e-3)


def test_scenes_are_divided_by_name_alone(clip, tmp_path: Path):
    names = [f"room{i}" for i in range(6)]
    for name in names:
        folders.write_geometry(tmp_path / "in" / name, clip)
    summary = prepare(tmp_path / "in", tmp_path / "out", config(split="auto", val_share=0.5))
    for split in ("train", "val"):
        levels = [c["level"] for c in open_clips(tmp_path / "out", split)]
        assert levels == [name for name in names if split_of(name, 0.5) == split]
        assert levels
    assert sum(summary.clips.values()) == 6
    assert 0.08 < np.mean([split_of(f"s{i}", 0.1) == "val" for i in range(2000)]) < 0.12


def test_the_last_clips_of_a_single_scene_are_for_validation(clip, tmp_path: Path):
    folders.write_geometry(tmp_path / "in", clip)
    settings = config(shape=ClipShape(3, 48, 64), split="auto", val_share=0.1)
    summary = prepare(tmp_path / "in", tmp_path / "out", settings)
    assert summary.clips == {"train": 2, "val": 1}
    assert open_clips(tmp_path / "out", "val")[0]["path"].endswith("@6")
    assert any("one scene only" in line for line in summary.lines())


def test_a_split_without_clips_is_said_and_not_opened(clip, tmp_path: Path):
    wrong = {**clip, "depth": (clip["depth"] / 5).astype(np.float16)}
    names = [f"room{i}" for i in range(9)]
    val, train = (next(n for n in names if split_of(n, 0.5) == s) for s in ("val", "train"))
    folders.write_geometry(tmp_path / "in" / train, clip)
    folders.write_geometry(tmp_path / "in" / val, wrong)
    settings = config(split="auto", val_share=0.5)
    summary = prepare(tmp_path / "in", tmp_path / "out", settings)
    assert any("no clips for val" in line for line in summary.lines())
    assert len(open_clips(tmp_path / "out", "train")) == 1
    with pytest.raises(ValueError, match="holds no clips"):
        open_clips(tmp_path / "out", "val")


def test_smaller_copies_of_pictures_are_read_with_scaled_intrinsics(clip, tmp_path: Path):
    folders.write_nerfstudio(tmp_path / "in", clip)
    (tmp_path / "in" / "images").rename(tmp_path / "in" / "images_2")
    for file in (tmp_path / "in" / "images_2").iterdir():
        Image.open(file).resize((32, 24)).save(file)
    prepare(tmp_path / "in", tmp_path / "out", config(shape=ClipShape(9, 24, 32)))
    got = open_clips(tmp_path / "out", "train")[0]
    expected = clip["intrinsics"] / np.array([[2], [2], [1]], np.float32)
    np.testing.assert_allclose(got["intrinsics"], expected, rtol=1e-5)


def test_a_stopped_preparation_goes_on_and_ends_in_the_same_bytes(
    clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(3):
        folders.write_geometry(tmp_path / "in" / str(number), clip)
    settings = config(shard_clips=1)
    prepare(tmp_path / "in", tmp_path / "whole", settings)
    made, real = [], prepare_lib.make_clip

    def stopping(recording: Any, start: int, cut: CutConfig) -> dict:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(recording.name)
        return real(recording, start, cut)

    with monkeypatch.context() as patched:
        patched.setattr(prepare_lib, "make_clip", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "in", tmp_path / "out", settings)
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    again = []
    monkeypatch.setattr(
        prepare_lib, "make_clip", lambda r, *rest: again.append(r.name) or real(r, *rest)
    )
    prepare(tmp_path / "in", tmp_path / "out", settings)
    assert made == ["0", "1"]
    assert again == ["2"]
    for file in sorted(f for f in (tmp_path / "whole").rglob("*") if f.is_file()):
        if file.name != "dataset_info.json":
            assert (tmp_path / "out" / file.relative_to(tmp_path / "whole")).read_bytes() == (
                file.read_bytes()
            )
    with pytest.raises(ValueError, match="other recordings or settings"):
        prepare(tmp_path / "in", tmp_path / "out", config(shard_clips=2))


def test_bad_recordings_are_quarantined_with_the_reason(clip, tmp_path: Path):
    folders.write_geometry(tmp_path / "in" / "good", clip)
    wrong = {**clip, "depth": (clip["depth"] / 5).astype(np.float16)}
    folders.write_geometry(tmp_path / "in" / "units", wrong)
    folders.write_geometry(tmp_path / "in" / "short", folders.make_clip(2, frames=3))
    folders.write_scannet(tmp_path / "in" / "broken", clip)
    picture = tmp_path / "in" / "broken" / "color" / "5.png"
    picture.write_bytes(picture.read_bytes()[:200])
    folders.write_realestate(tmp_path / "in" / "flat", clip, depth=False)
    summary = prepare(tmp_path / "in", tmp_path / "out", config())
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    entries = {entry["recording"]: entry for entry in map(json.loads, lines)}
    assert set(entries) == {"units", "short", "broken", "flat/abc"}
    assert "depth times 5.66" in entries["units"]["reason"]
    assert "got 3 pictures, expected at least 9" in entries["short"]["reason"]
    assert "5.png" in entries["broken"]["reason"]
    assert entries["broken"]["start"] == 0
    assert "has no depth" in entries["flat/abc"]["reason"]
    assert summary.clips == {"train": 1}
    assert sum(summary.quarantined.values()) == 4
    assert [c["level"] for c in open_clips(tmp_path / "out", "train")] == ["good"]


FAULTS = {
    "small depth": lambda c: {"depth": (c["depth"] / 30).astype(np.float16)},
    "large depth": lambda c: {"depth": (c["depth"] * 5).astype(np.float16)},
    "inverted cameras": lambda c: {"cam_to_world": np.linalg.inv(c["cam_to_world"])},
    "other axes": lambda c: {"cam_to_world": c["cam_to_world"] @ np.diag([1, -1, -1, 1.0])},
    "shuffled": lambda c: {"cam_to_world": c["cam_to_world"][np.arange(len(c["rgb"])) * 7 % 25]},
    "another lens": lambda c: {"intrinsics": c["intrinsics"] * np.array([[1.6], [1.6], [1]])},
    "no depth": lambda c: {"depth": c["depth"] * np.float16(0)},
}


@pytest.fixture(scope="module", params=[0, 1, 2])
def longer(request: pytest.FixtureRequest) -> dict:
    return folders.make_clip(request.param, frames=25)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_clip_whose_parts_disagree_is_found(fault: str, longer):
    assert fault_of(measure_clip(longer)) is None
    assert fault_of(measure_clip(longer | FAULTS[fault](longer))) is not None


def test_measures_say_what_they_are(longer):
    measure = measure_clip(longer)
    assert measure.disagreement < 0.02
    assert measure.moved < 0.25 * measure.copied
    assert measure.known == 1.0
    assert measure.factor == 1.0
    rng = np.random.default_rng(0)
    depth = longer["depth"] * (1 + 0.02 * rng.standard_normal(longer["depth"].shape))
    depth[rng.random(depth.shape) < 0.3] = 0
    loud = np.clip(longer["rgb"] + rng.normal(0, 6, longer["rgb"].shape), 0, 255).astype(np.uint8)
    sensed = {"rgb": loud, "depth": depth.astype(np.float16)}
    assert fault_of(measure_clip(longer | sensed)) is None
    still = {k: longer[k][:1].repeat(25, 0) for k in ("rgb", "depth", "cam_to_world", "moving")}
    assert fault_of(measure_clip(longer | still)) is None
    noise = rng.normal(0, 10, longer["rgb"].shape)
    still["rgb"] = np.clip(still["rgb"] + noise, 0, 255).astype(np.uint8)
    assert fault_of(measure_clip(longer | still)) is None


def test_two_readings_are_refused_with_both(clip, tmp_path: Path):
    folders.write_geometry(tmp_path / "in", clip)
    folders.write_nerfstudio(tmp_path / "in", clip)
    with pytest.raises(ValueError, match=r"--kind geometry: .*\n.*--kind nerfstudio: "):
        find_recordings(tmp_path / "in")
    assert [f.kind for f in find_recordings(tmp_path / "in", "nerfstudio")] == ["nerfstudio"]


def test_frames_without_a_camera_break_the_recording(clip, tmp_path: Path):
    folders.write_scannet(tmp_path / "in", clip)
    lost = np.full((4, 4), -np.inf)
    np.savetxt(tmp_path / "in" / "pose" / "4.txt", lost)
    summary = prepare(tmp_path / "in", tmp_path / "out", config(shape=ClipShape(3, 48, 64)))
    starts = [c["path"].split("@")[1] for c in open_clips(tmp_path / "out", "train")]
    # Frames 0..3 and 5..8: one clip each, none across the hole, one picture left of each run.
    assert starts == ["0", "4"]
    assert summary.left_over == 2
    assert any("1 frames without a valid camera" in note for note in summary.notes)


def spoil_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


SPOILED = {
    "tum": lambda d: spoil_line(d / "rgb.txt", 4, "1000.1 rgb/a.png more"),
    "tum groundtruth": lambda d: spoil_line(d / "groundtruth.txt", 3, "1000.1 1 2"),
    "7scenes": lambda d: spoil_line(d / "frame-000003.pose.txt", 2, "1 2 three 4"),
    "scannet": lambda d: (d / "pose" / "3.txt").write_text("1 0 0 0\n"),
    "realestate10k": lambda d: spoil_line(d / "abc.txt", 4, "1 2 3"),
    "nerfstudio": lambda d: (d / "transforms.json").write_text("{"),
    "geometry": lambda d: (d / "geometry.npz").write_bytes(b"PK\x03\x04"),
    "vipe": lambda d: (d / "depth.zip").write_bytes(b"PK"),
}
NAMED = {
    "tum": "rgb.txt: line 4", "tum groundtruth": "groundtruth.txt: line 3",
    "7scenes": "frame-000003.pose.txt: line 2", "scannet": "3.txt: line 2",
    "realestate10k": "abc.txt: line 4", "nerfstudio": "transforms.json",
    "geometry": "geometry.npz", "vipe": "depth.zip",
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_broken_file_is_named_with_its_line(case: str, clip, tmp_path: Path):
    kind = case.split()[0]
    folders.WRITERS[kind](tmp_path / "in", clip)
    SPOILED[case](tmp_path / "in")
    with pytest.raises(ValueError, match=NAMED[case]):
        prepare(
            tmp_path / "in", tmp_path / "out", config(clip if kind in WITHOUT_INTRINSICS else None)
        )


def test_missing_pictures_are_named(clip, tmp_path: Path):
    folders.write_nerfstudio(tmp_path / "in", clip)
    (tmp_path / "in" / "images" / "3.png").unlink()
    with pytest.raises(ValueError, match="3.png, which is not there"):
        prepare(tmp_path / "in", tmp_path / "out", config())
    shutil.rmtree(tmp_path / "in")
    folders.write_realestate(tmp_path / "in", clip)
    (tmp_path / "in" / "abc" / "00003.png").unlink()
    with pytest.raises(ValueError, match="9 cameras and 8 pictures"):
        prepare(tmp_path / "in", tmp_path / "other", config())


def test_cameras_of_frames_that_are_not_there_are_named(clip, tmp_path: Path):
    folders.write_vipe(tmp_path / "in", clip)
    (tmp_path / "in" / "rgb" / "00008.png").unlink()
    with pytest.raises(ValueError, match="camera for frame 8, got 8 pictures"):
        prepare(tmp_path / "in", tmp_path / "out", config())
    folders.write_vipe(tmp_path / "in", clip)
    with np.load(tmp_path / "in" / "pose.npz") as stored:
        arrays = dict(stored)
    arrays["inds"][0] = -1
    for name in ("pose", "intrinsics"):
        with np.load(tmp_path / "in" / f"{name}.npz") as stored:
            content = {**stored, "inds": arrays["inds"]}
        np.savez(tmp_path / "in" / f"{name}.npz", **content)
    with pytest.raises(ValueError, match="camera for frame -1"):
        prepare(tmp_path / "in", tmp_path / "out", config())


def test_pictures_that_are_not_the_cameras_are_refused(clip, tmp_path: Path):
    folders.write_nerfstudio(tmp_path / "in", clip)
    for file in (tmp_path / "in" / "images").iterdir():
        Image.open(file).resize((48, 48)).save(file)
    with pytest.raises(ValueError, match="cameras belong to pictures of 48x64"):
        prepare(tmp_path / "in", tmp_path / "out", config())


def test_the_command_prepares_and_goes_on_and_says_what_is_wrong(clip, tmp_path: Path):
    folders.write_geometry(tmp_path / "in", clip)
    size = ["--height", "48", "--width", "64", "--frames", "9", "--split", "val"]
    arguments = ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *size]
    for _ in range(2):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert "1 val" in result.output
        assert "quarantined   nothing" in result.output
    assert split_names(tmp_path / "out") == ["val"]
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(cli, ["prepare", str(tmp_path / "empty"), "--out", "x"])
    assert result.exit_code == 2
    assert "holds no recording" in result.output


def test_the_command_offers_every_layout():
    kind = next(option for option in prepare_cli.command.params if option.name == "kind")
    assert tuple(kind.type.choices) == tuple(READERS)
