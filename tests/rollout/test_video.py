"""Videos out and in: what is written is what is read, at any size, and damage is named."""

import numpy as np
import pytest
from click.testing import CliRunner
from file_edits import EDITS, edited, fuzzed
from hypothesis import given
from PIL import Image

from mirage_jax.cli.main import cli
from mirage_jax.rollout import outputs, video


def clip(frames=6, hw=(64, 96)):
    """Colour ramps that move, with a red patch."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    made = [
        np.stack([(x + 3 * i) % 256, 2 * y, np.full_like(x, 20 * i)], -1) for i in range(frames)
    ]
    made = np.stack(made).astype(np.uint8)
    made[:, :16, :16] = 255, 0, 0
    return made


def run(*arguments):
    return CliRunner().invoke(cli, ["video", "convert", *map(str, arguments)])


@pytest.mark.parametrize("hw", [(64, 96), (63, 95), (64, 95), (1, 1), (2, 3)])
def test_mp4_of_any_size_holds_every_pixel(hw, tmp_path):
    frames = clip(hw=hw)
    video.write_video(tmp_path / "a.mp4", frames)
    found = video.read_video(tmp_path / "a.mp4", len(frames))
    assert found.shape[1:3] == tuple(side + side % 2 for side in hw)
    if min(hw) > 8:
        off = np.abs(found[:, : hw[0], : hw[1]].astype(int) - frames)
        assert off.mean() < 3
        # Colours are those of BT.709, not shifted.
        np.testing.assert_allclose(found[:, 6, 6], frames[:, 6, 6], atol=3)


def test_mp4_is_h264_in_yuv420p_at_the_rate_asked_for(tmp_path):
    import av

    video.write_video(tmp_path / "a.mp4", clip(), fps=23.976)
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name in ("h264", "libdav1d")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(23.976, rel=1e-4)
        assert stream.codec_context.colorspace == 1
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before all of it is there


def test_smaller_crf_is_nearer_to_the_frames(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    errors = []
    for crf in (4, 14, 30):
        video.write_video(tmp_path / "a.mp4", frames, crf=crf)
        errors.append(np.abs(video.read_video(tmp_path / "a.mp4").astype(int) - frames).mean())
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


@pytest.mark.parametrize(("name", "within"), [("a.gif", 12), ("a.webp", 6)])
def test_animations_repeat_and_last_as_long_as_they_should(name, within, tmp_path):
    frames = clip(7, (63, 95))
    video.write_animation(tmp_path / name, frames, fps=7.0)
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == 7
        assert image.info["loop"] == 0
        total, shown = 0, []
        for index in range(7):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB")))
            total += image.info["duration"]
    assert total == pytest.approx(1000, abs=10)
    assert np.abs(np.stack(shown).astype(int) - frames).mean() < within


def test_frames_are_exact_and_leave_none_of_an_older_video(tmp_path):
    video.write_frames(tmp_path / "f", clip(9))
    video.write_frames(tmp_path / "f", clip(4))
    found = np.stack(list(video.iterate_video(tmp_path / "f")))
    np.testing.assert_array_equal(found, clip(4))


def test_side_by_side_shows_both_in_order():
    left, right = clip(), 255 - clip(5)
    both = list(video.beside(left, right, gap=2))
    assert len(both) == 5
    np.testing.assert_array_equal(both[3][:, :96], left[3])
    np.testing.assert_array_equal(both[3][:, 98:], right[3])
    with pytest.raises(ValueError, match="heights 64 and 32"):
        list(video.beside(left, clip(hw=(32, 32))))


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match="no frames to write"):
        video.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match=r"frame 1 has shape \(3, 4, 3\)"):
        video.write_video(tmp_path / "a.mp4", [clip()[0], np.zeros((3, 4, 3), np.uint8)])
    assert not list(tmp_path.iterdir())  # nothing half written stays
    with pytest.raises(ValueError, match="at most 50 frames a second"):
        video.write_animation(tmp_path / "a.gif", clip(), fps=60)
    with pytest.raises(ValueError, match=r"a.avi: got '.avi', expected .mp4"):
        video.write_any(tmp_path / "a.avi", clip())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    video.write_video(tmp_path / "a.mp4", clip())
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="frame 1"):
        video.write_video(tmp_path / "a.mp4", [clip()[0], clip(hw=(8, 8))[0]])
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "streams", "formats"),
    [
        ("mp4", ("video",), ("mp4",)),
        ("webp, frames", ("video",), ("mp4", "webp", "frames")),
        ("side_by_side,gif", ("video", "side_by_side"), ("mp4", "gif")),
        ("conditioning", ("video", "conditioning"), ("mp4",)),
    ],
)
def test_save_chooses_streams_and_formats(text, streams, formats):
    assert outputs.parse_saved(text) == (streams, formats)


def test_an_unknown_format_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="got 'webm', expected .*; did you mean 'webp'"):
        outputs.parse_saved("webm")


def test_each_stream_is_written_in_each_format(tmp_path):
    saved = outputs.parse_saved("webp,side_by_side")
    names = outputs.write_streams(tmp_path, clip(), 255 - clip(), saved, 8.0)
    assert names == ["video.mp4", "video.webp", "side_by_side.mp4", "side_by_side.webp"]
    assert video.read_video(tmp_path / "side_by_side.mp4").shape == (6, 64, 196, 3)


def test_convert_keeps_speed_resizes_and_puts_beside(tmp_path):
    video.write_video(tmp_path / "a.mp4", clip(12), fps=12)
    result = run(tmp_path / "a.mp4", tmp_path / "b.mp4", "--every", 3, "--width", 48)
    assert result.exit_code == 0, result.output
    assert video.read_video(tmp_path / "b.mp4").shape == (4, 32, 48, 3)
    assert video.frame_rate(tmp_path / "b.mp4") == pytest.approx(4)
    result = run(tmp_path / "a.mp4", tmp_path / "c.webp", "--beside", tmp_path / "a.mp4")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "c.webp") as image:
        assert image.size == (196, 64)
        assert image.n_frames == 12
    assert run(tmp_path / "a.mp4", tmp_path / "frames").exit_code == 0
    assert run(tmp_path / "frames", tmp_path / "d.gif", "--fps", 5).exit_code == 0
    assert "SOURCE itself" in run(tmp_path / "a.mp4", tmp_path / "a.mp4").output
    assert "no.mp4" in run(tmp_path / "no.mp4", tmp_path / "b.mp4").output


def test_damaged_videos_never_end_in_a_traceback(tmp_path):
    video.write_video(tmp_path / "a.mp4", clip(3, (16, 16)))
    original = (tmp_path / "a.mp4").read_bytes()

    @fuzzed(40)
    @given(edits=EDITS)
    def check(edits):
        (tmp_path / "a.mp4").write_bytes(edited(original, edits))
        result = run(tmp_path / "a.mp4", tmp_path / "frames")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code == 0 or "a.mp4" in result.output or "frames" in result.output

    check()


def test_a_video_larger_than_may_be_taken_is_refused(tmp_path, monkeypatch):
    video.write_video(tmp_path / "a.mp4", clip())
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="a.mp4, expected at most 1000 pixels"):
        video.read_video(tmp_path / "a.mp4")
    monkeypatch.undo()
    monkeypatch.setattr(video, "MAX_BYTES", 40_000)
    with pytest.raises(ValueError, match="more than 40000 bytes of frames in .*a.mp4"):
        video.read_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="a.webp: got more than 40000 bytes of frames"):
        video.write_animation(tmp_path / "a.webp", video.iterate_video(tmp_path / "a.mp4"))
