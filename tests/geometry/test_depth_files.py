"""Depth files of every format: the same values come back, and what has two readings is refused."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth_files import (
    DepthReading,
    depth_from_range,
    depth_reading_of,
    pseudo_depth,
    read_depth,
    write_depth,
    z_depth,
)
from mirage_jax.geometry.depth_kind import flatter_reading
from mirage_jax.geometry.projection import camera_rays

MM = DepthReading(unit=0.001)
HW = (48, 64)
CAMERA = Camera(np.eye(4), np.array([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]]))


def room_depth(hw=HW, camera=CAMERA):
    """z-depth of a box-shaped room seen from inside, by intersecting rays with its walls."""
    rays = camera_rays(camera, hw).astype(np.float64)
    walls = [(0, 1.5), (0, -1.2), (1, 1.0), (1, -1.1), (2, 4.0)]
    with np.errstate(divide="ignore"):
        hits = [np.where(place / rays[..., axis] > 0, place / rays[..., axis], np.inf)
                for axis, place in walls]  # fmt: skip
    return np.min(hits, axis=0)


def exr_bytes(depth, channel="Z"):
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    stream = io.BytesIO()
    try:
        openexr.File(header, {channel: depth}).write(stream)
    except TypeError:
        pytest.skip("this OpenEXR writes no streams")
    return stream.getvalue()


def written(folder, kind, depth):
    """Write millimetre-exact depth [H, W] in a format; return the file and how to read it."""
    steps, file = np.round(depth * 1000), folder / f"depth.{kind}"
    if kind == "npy":
        np.save(file, depth.astype(np.float32))
    elif kind == "npz":
        np.savez_compressed(file, depth=depth.astype(np.float32), other=np.zeros(3))
    elif kind == "png":
        Image.fromarray(steps.astype(np.uint16)).save(file)
    elif kind == "tif":
        Image.fromarray(depth.astype(np.float32)).save(file)
    elif kind == "exr":
        file.write_bytes(exr_bytes(depth.astype(np.float32)))
    elif kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for number in (10, 9):
                archive.writestr(f"{number:05d}.exr", exr_bytes((depth * number).astype("f4")))
    return file, MM if kind == "png" else DepthReading()


@pytest.mark.parametrize("kind", ["npy", "npz", "png", "tif", "exr", "zip"])
def test_every_format_gives_back_its_values(kind, tmp_path):
    depth = np.round(room_depth(), 3)
    depth[3, 4] = 0
    file, reading = written(tmp_path, kind, depth)
    maps = read_depth(file, reading)
    if kind == "zip":  # frames in the order of their numbers
        assert maps.values.shape == (2, *HW)
        np.testing.assert_allclose(maps.values[0], 9 * depth, rtol=1e-6)
    np.testing.assert_allclose(maps.values[-1], depth * (10 if kind == "zip" else 1), rtol=1e-6)
    assert maps.kind == "z"
    assert maps.stated == (kind == "zip")
    assert z_depth(maps, CAMERA)[0, 3, 4] == 0


def test_a_folder_of_pictures_is_a_clip_in_the_order_of_its_numbers(tmp_path):
    for number in (2, 10):
        Image.fromarray(np.full(HW, number, np.uint16)).save(tmp_path / f"d{number}.png")
    np.testing.assert_array_equal(
        read_depth(tmp_path, MM).values[:, 0, 0], np.float32([0.002, 0.01])
    )


def test_vipes_half_floats_and_background_are_understood(tmp_path):
    depth = room_depth().astype(np.float16)
    depth[0, 0] = np.inf
    (tmp_path / "depth.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "depth.zip", "w") as archive:
        archive.writestr("00000.exr", exr_bytes(depth))
    values = read_depth(tmp_path).values  # a folder of ViPE
    assert values[0, 0, 0] == 0
    np.testing.assert_array_equal(values[0, 1:], depth[1:].astype(np.float32))


def test_whole_numbers_without_a_unit_are_refused_with_both_readings(tmp_path):
    file, _ = written(tmp_path, "png", np.full(HW, 1.5))
    with pytest.raises(ValueError, match=r"(?s)depth.png: .*unit.*mm: the median is 1.5.*0.3"):
        read_depth(file)
    np.save(tmp_path / "a.npy", np.full(HW, 1500, np.int32))
    with pytest.raises(ValueError, match="a.npy: holds whole numbers"):
        read_depth(tmp_path / "a.npy")


def test_saturated_sensors_are_unknown_and_said_to_be(tmp_path):
    steps = np.full(HW, 1500, np.uint16)
    steps[:10] = 65535
    Image.fromarray(steps).save(tmp_path / "d.png")
    maps = read_depth(tmp_path / "d.png", MM)
    assert (maps.values[0, :10] == 0).all()
    assert "65535" in maps.notes[0]


BAD = {
    "NaN": (np.full(HW, np.nan), "not finite"),
    "negative": (np.full(HW, -1.0), "negative"),
    "zero": (np.zeros(HW), "zero everywhere"),
    "infinite in float32": (np.full(HW, 1e60), "not finite"),
    "a vector": (np.ones(7), "wrong shape"),
    "colour": (np.ones((*HW, 3, 3, 1)), "wrong shape"),
    "8 bits": (np.ones(HW, np.uint8), "8-bit"),
    "text": (np.full(HW, "x"), "numbers"),
    "complex": (np.ones(HW, complex), "numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_depth_is_refused_with_its_file(case, tmp_path):
    array, message = BAD[case]
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises((ValueError, TypeError), match=f"bad.npy.*{message}"):
        read_depth(tmp_path / "bad.npy")


def test_pictures_that_are_not_depth_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "grey.png")
    for name in ("rgb.png", "grey.png"):
        with pytest.raises(ValueError, match=rf"{name}: is not depth"):
            read_depth(tmp_path / name)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.jpg: is no file of depth"):
        read_depth(tmp_path / "a.jpg")
    np.savez(tmp_path / "two.npz", a=np.ones(HW), b=np.ones(HW))
    with pytest.raises(ValueError, match=r"two.npz: does not say which array"):
        read_depth(tmp_path / "two.npz")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), DepthReading()),
        (("ray", "mm"), DepthReading("ray", 0.001)),
        (("unit=2e-4",), DepthReading(None, 2e-4)),
        (("z", "m", "unit=1"), DepthReading("z", 1.0)),
    ],
)
def test_words_say_what_a_file_leaves_open(words, expected):
    assert depth_reading_of(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rai",), "did you mean 'ray'"),
        (("z", "ray"), "both 'z' and 'ray'"),
        (("mm", "m"), "both"),
        (("unit=-1",), "positive"),
        (("unit=nan",), "positive"),
    ],
)
def test_words_that_say_nothing_or_two_things_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        depth_reading_of(words)


def test_distances_along_rays_become_z_depth(tmp_path):
    depth = room_depth()
    distance = depth * np.linalg.norm(camera_rays(CAMERA, HW), axis=-1)
    np.save(tmp_path / "d.npy", distance)
    maps = read_depth(tmp_path / "d.npy", DepthReading(kind="ray"))
    np.testing.assert_allclose(z_depth(maps, CAMERA)[0], depth, rtol=1e-5)


def test_distances_along_rays_are_noticed_where_they_are_not_stated(tmp_path):
    depth = room_depth()
    distance = depth * np.linalg.norm(camera_rays(CAMERA, HW), axis=-1)
    np.save(tmp_path / "d.npy", distance)
    with pytest.raises(ValueError, match=r"(?s)d.npy: .*--depth-as ray.*--depth-as z"):
        z_depth(read_depth(tmp_path / "d.npy"), CAMERA)
    stated = read_depth(tmp_path / "d.npy", DepthReading(kind="z"))
    np.testing.assert_allclose(z_depth(stated, CAMERA)[0], distance, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.0005])
def test_which_reading_makes_walls_flat(noise):
    random = np.random.default_rng(0)
    depth = room_depth() * (1 + noise * random.standard_normal(HW))
    distance = depth * np.linalg.norm(camera_rays(CAMERA, HW), axis=-1)
    assert flatter_reading(depth, CAMERA.intrinsics).kind == "z"
    assert flatter_reading(distance, CAMERA.intrinsics).kind == "ray"


def test_nothing_is_told_of_noise_or_of_a_scene_without_planes():
    random = np.random.default_rng(0)
    assert flatter_reading(1 + random.random(HW), CAMERA.intrinsics).kind is None
    assert flatter_reading(np.zeros(HW), CAMERA.intrinsics).kind is None
    assert flatter_reading(np.ones((4, 4)), CAMERA.intrinsics).kind is None


def test_disparity_needs_an_alignment_or_a_range(tmp_path):
    depth = room_depth()
    np.save(tmp_path / "d.npy", 3 / depth + 2)
    maps = read_depth(tmp_path / "d.npy", DepthReading(kind="disparity"))
    with pytest.raises(ValueError, match="--near-far"):
        z_depth(maps, CAMERA)
    near, far = 1 / np.percentile(1 / depth, (98, 2))
    found = depth_from_range(maps.values[0], near, far)
    np.testing.assert_allclose(found, np.clip(depth, near, far), rtol=1e-3)
    with pytest.raises(ValueError, match="0 < near < far"):
        depth_from_range(maps.values[0], 5, 1)


def test_disparity_that_is_not_finite_is_unknown_depth(tmp_path):
    disparity = 3 / room_depth() + 2
    disparity[:5] = np.inf
    disparity[5] = np.nan
    np.save(tmp_path / "d.npy", disparity)
    maps = read_depth(tmp_path / "d.npy", DepthReading(kind="disparity"))
    assert "not finite and taken as unknown" in maps.notes[0]
    for depth in (depth_from_range(maps.values[0], 1, 5), pseudo_depth(maps.values[0])):
        assert (depth[:6] == 0).all()
        assert (depth[6:] > 0).all()
    np.save(tmp_path / "e.npy", np.full(HW, np.inf))
    with pytest.raises(ValueError, match="e.npy: disparity is the same everywhere, or nowhere"):
        read_depth(tmp_path / "e.npy", DepthReading(kind="disparity"))


def test_written_depth_is_read_back(tmp_path):
    write_depth(tmp_path / "d.npz", room_depth())
    np.testing.assert_allclose(read_depth(tmp_path / "d.npz").values[0], room_depth(), rtol=1e-6)
    with pytest.raises(ValueError, match="d.png: expected a name ending in .npz"):
        write_depth(tmp_path / "d.png", room_depth())
