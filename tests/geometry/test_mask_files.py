"""Masks of every format are the same masks; what has two readings is refused with both."""

import io
import zipfile

import numpy as np
import pytest
from file_edits import EDITS, edited, fuzzed
from hypothesis import given
from PIL import Image

from mirage_jax.geometry.mask_files import read_masks

KEEP = np.ones((3, 8, 12), bool)
KEEP[0, 2:5, 3:7] = KEEP[1, 2:5, 4:8] = KEEP[2, :3, :5] = False


def png(values, mode=None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values, mode).save(stream, "PNG")
    return stream.getvalue()


def zipped(path, frames):
    with zipfile.ZipFile(path, "w") as archive:
        # Names that are not in order as text.
        for number in (10, 9, 2):
            archive.writestr(f"mask/{number}.png", png(frames[{2: 0, 9: 1, 10: 2}[number]]))
    return path


def pictures(folder, frames):
    folder.mkdir()
    for index, frame in enumerate(frames):
        (folder / f"{index:04d}.png").write_bytes(png(frame))
    return folder


def test_all_formats_give_the_same_masks(tmp_path):
    np.save(tmp_path / "bool.npy", KEEP)
    np.save(tmp_path / "channel.npy", KEEP[..., None].astype(np.float32))
    np.savez(tmp_path / "keep.npz", keep=KEEP, other=np.zeros(3))
    np.savez(tmp_path / "moving.npz", moving=~KEEP)
    geometry = {"depths": KEEP * 1.0, "intrinsics": np.eye(3), "poses_c2w": np.eye(4)}
    np.savez(tmp_path / "geometry.npz", masks=KEEP, **geometry)
    pictures(tmp_path / "folder", 255 * KEEP.astype(np.uint8))
    # ViPE numbers what moves and leaves the rest 0.
    zipped(tmp_path / "mask.zip", 7 * (~KEEP).astype(np.uint8))
    for name in (
        "bool.npy", "channel.npy", "keep.npz", "moving.npz", "geometry.npz", "folder", "mask.zip",
    ):  # fmt: skip
        np.testing.assert_array_equal(read_masks(tmp_path / name).keep, KEEP, err_msg=name)
    np.testing.assert_array_equal(read_masks(tmp_path).keep, KEEP)  # a folder with a mask.zip


def test_pictures_of_one_mask_in_every_mode(tmp_path):
    keep = KEEP[0]
    grey = 255 * keep.astype(np.uint8)
    palette = Image.fromarray(keep.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(keep).save(tmp_path / "one_bit.png")
    Image.fromarray(np.repeat(grey[..., None], 3, -1)).save(tmp_path / "colour.png")
    large = keep.repeat(8, 0).repeat(8, 1)
    Image.fromarray(255 * large.astype(np.uint8)).save(tmp_path / "lossy.jpg", quality=60)
    for name in ("palette.png", "one_bit.png", "colour.png"):
        np.testing.assert_array_equal(read_masks(tmp_path / name).keep[0], keep, err_msg=name)
    np.testing.assert_array_equal(read_masks(tmp_path / "lossy.jpg").keep[0], large)


def test_a_file_that_marks_the_smaller_part_is_refused_with_both_readings(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, ~KEEP)
    with pytest.raises(ValueError, match="does not say") as refused:
        read_masks(path)
    share = 1 - KEEP.mean()
    assert f"--mask-as keep: every value but 0 is kept, {share:.1%}" in str(refused.value)
    assert f"--mask-as moving: every value but 0 moves, {1 - share:.1%}" in str(refused.value)
    np.testing.assert_array_equal(read_masks(path, "moving").keep, KEEP)
    np.testing.assert_array_equal(read_masks(path, "keep").keep, ~KEEP)


def test_numbers_of_things_and_soft_edges_are_not_guessed_at(tmp_path):
    numbers = np.arange(96, dtype=np.uint8).reshape(8, 12) // 30 + 1
    (tmp_path / "numbers.png").write_bytes(png(numbers))
    with pytest.raises(ValueError, match="more than two values"):
        read_masks(tmp_path / "numbers.png")
    numbers[0] = 0
    (tmp_path / "numbers.png").write_bytes(png(numbers))
    np.testing.assert_array_equal(
        read_masks(tmp_path / "numbers.png", "moving").keep[0], numbers == 0
    )
    clear = np.full((8, 12, 4), 255, np.uint8)
    clear[:4, :, 3] = 0
    (tmp_path / "clear.png").write_bytes(png(clear))
    with pytest.raises(ValueError, match="transparent"):
        read_masks(tmp_path / "clear.png", "keep")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4, 5)), "wrong shape"),
        (np.full((8, 12), np.nan), "is no mask"),
        (np.array([["a", "b"]]), "is no mask"),
        (np.zeros((8, 12), bool), "does not say"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(tmp_path, array, message):
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(ValueError, match=message) as refused:
        read_masks(tmp_path / "mask.npy")
    assert "mask.npy" in str(refused.value)


def test_a_mask_that_keeps_nothing_and_frames_of_two_sizes_are_refused(tmp_path):
    np.save(tmp_path / "all.npy", np.ones((8, 12), bool))
    with pytest.raises(ValueError, match="keeps no pixel at all, read as --mask-as moving"):
        read_masks(tmp_path / "all.npy", "moving")
    pictures(tmp_path / "sizes", [np.ones((8, 12), np.uint8), np.ones((8, 11), np.uint8)])
    with pytest.raises(ValueError, match=r"0001.png differs: got \(8, 11\)"):
        read_masks(tmp_path / "sizes")
    with pytest.raises(FileNotFoundError, match="no such file of masks"):
        read_masks(tmp_path / "none.png")


@pytest.mark.parametrize("name", ["mask.zip", "mask.npz", "mask.png", "mask.npy"])
def test_damaged_files_end_in_a_message(tmp_path, name):
    path = tmp_path / name
    if name == "mask.zip":
        zipped(path, 7 * (~KEEP).astype(np.uint8))
    elif name == "mask.npz":
        np.savez(path, keep=KEEP)
    elif name == "mask.npy":
        np.save(path, KEEP)
    else:
        path.write_bytes(png(255 * KEEP[0].astype(np.uint8)))
    content = path.read_bytes()

    @fuzzed(40)
    @given(edits=EDITS)
    def check(edits):
        path.write_bytes(edited(content, edits))
        message = name
        try:
            read_masks(path)
        except ValueError as error:
            message = str(error)
        assert name in message

    check()
