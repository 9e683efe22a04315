"""Recordings of lenses that bend, and oddities of public benchmarks, through `mirage prepare`.

World points are drawn where OpenCV's projection puts them in the bent picture; in the prepared clip
they must be where its pinhole cameras see them, and depth must lie on the plane they are on.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import recorded_folders as folders
from PIL import Image

from mirage_jax.data.clip import ClipShape
from mirage_jax.data.ingest.cut import CutConfig
from mirage_jax.data.ingest.layouts import posed_rgbd
from mirage_jax.data.ingest.plan import PrepareConfig
from mirage_jax.data.ingest.prepare import prepare
from mirage_jax.data.ingest.recording import IngestOptions
from mirage_jax.data.source import open_clips

HEIGHT, WIDTH, FRAMES = 240, 320, 3
LENS = np.array([[190.0, 0, 163], [0, 193.0, 117], [0, 0, 1]])
BARREL = {"camera_model": "OPENCV", "k1": -0.21, "k2": 0.05, "p1": 0.001, "p2": -0.0015}
FISHEYE = {"camera_model": "OPENCV_FISHEYE", "k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.0}
# The plane that everything lies on: normal . point = 3 in the world.
NORMAL = np.array([0.15, -0.1, 1.0])


def settings(size: tuple[int, int] = (HEIGHT, WIDTH), frames: int = FRAMES) -> PrepareConfig:
    return PrepareConfig(CutConfig(ClipShape(frames, *size)), split="train", check=False)


def cameras() -> np.ndarray:
    found = np.tile(np.eye(4), (FRAMES, 1, 1))
    for index in range(FRAMES):
        found[index, :3, :3] = cv2.Rodrigues(np.array([0.02, -0.04, 0.03]) * index)[0]
        found[index, :3, 3] = np.array([0.12, -0.05, 0.1]) * index
    return found


def world_points() -> np.ndarray:
    column, row = np.meshgrid(np.linspace(-1.9, 2.2, 9), np.linspace(-1.3, 1.2, 7))
    z = 3 - NORMAL[0] * column - NORMAL[1] * row
    return np.stack([column, row, z], -1).reshape(-1, 3)


def plane_depth(matrix: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """z-depth where rays [..., 3] with z = 1 of a camera meet the plane."""
    along = (rays @ matrix[:3, :3].T) @ NORMAL
    return (3 - NORMAL @ matrix[:3, 3]) / along


def bent(points: np.ndarray, matrix: np.ndarray, told: dict, lens: np.ndarray) -> np.ndarray:
    """Where OpenCV sees world points, (column, row) with the first centre at (0.5, 0.5)."""
    to_camera = np.linalg.inv(matrix)
    given = points[:, None], cv2.Rodrigues(to_camera[:3, :3])[0], to_camera[:3, 3].copy()
    if told["camera_model"] == "OPENCV_FISHEYE":
        values = np.array([told[f"k{i}"] for i in (1, 2, 3, 4)])
        return cv2.fisheye.projectPoints(given[0], *given[1:], lens, values)[0][:, 0]
    values = np.array([told.get(k, 0.0) for k in ("k1", "k2", "p1", "p2", "k3")])
    return cv2.projectPoints(given[0], *given[1:], lens, values)[0][:, 0]


def unbent_rays(told: dict, lens: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    column, row = np.meshgrid(np.arange(hw[1]) + 0.5, np.arange(hw[0]) + 0.5)
    at = np.stack([column, row], -1).reshape(-1, 1, 2)
    if told["camera_model"] == "OPENCV_FISHEYE":
        values = np.array([told[f"k{i}"] for i in (1, 2, 3, 4)])
        found = cv2.fisheye.undistortPoints(at, lens, values)
    else:
        values = np.array([told.get(k, 0.0) for k in ("k1", "k2", "p1", "p2", "k3")])
        rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-10)
        found = cv2.undistortPoints(at, lens, values, criteria=rule)
    return np.concatenate([found[:, 0], np.ones((len(at), 1))], -1).reshape(*hw, 3)


def dots(at: np.ndarray, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    column, row = np.meshgrid(np.arange(hw[1]) + 0.5, np.arange(hw[0]) + 0.5)
    found = np.zeros(hw)
    for x, y in at:
        found = np.maximum(found, np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 1.5**2)))
    return np.repeat(np.rint(found * 255).astype(np.uint8)[..., None], 3, -1)


def found_dot(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Centroid of what is bright within 6 pixels of a place."""
    column, row = np.meshgrid(*(np.arange(n) + 0.5 for n in picture.shape[1::-1]))
    weight = picture[..., 0].astype(float)
    weight[(abs(column - at[0]) > 6) | (abs(row - at[1]) > 6)] = 0
    assert weight.max() > 150, f"no dot at {at}"
    return np.array([(weight * column).sum(), (weight * row).sum()]) / weight.sum()


def check_clip(clip: dict[str, Any], least: int) -> None:
    """Dots and depth are where the clip's pinhole cameras see the world."""
    height, width = clip["rgb"].shape[1:3]
    lens, checked = clip["intrinsics"].astype(float), 0
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(lens).T
    for picture, depth, matrix in zip(
        clip["rgb"], clip["depth"], clip["cam_to_world"], strict=True
    ):
        to_camera = np.linalg.inv(matrix.astype(float))
        points = world_points() @ to_camera[:3, :3].T + to_camera[:3, 3]
        at = (points / points[:, 2:]) @ lens.T
        for x, y in at[:, :2]:
            if 8 < x < width - 8 and 8 < y < height - 8:
                assert np.linalg.norm(found_dot(picture, np.array([x, y])) - (x, y)) <= 0.5
                checked += 1
        np.testing.assert_allclose(depth, plane_depth(matrix, rays), rtol=4e-3)
    assert checked >= least


def write_nerfstudio(folder: Path, told: dict, depth_size: tuple[int, int]) -> None:
    """As DL3DV's: OpenGL cameras, distortion at the top, depth and masks beside the pictures."""
    for name in ("images", "depths", "masks"):
        (folder / name).mkdir(parents=True)
    scale = np.array([[depth_size[1] / WIDTH], [depth_size[0] / HEIGHT], [1]])
    frames = []
    for index, matrix in enumerate(cameras()):
        name = f"frame_{index + 1:05d}.png"
        at = bent(world_points(), matrix, told, LENS)
        Image.fromarray(dots(at)).save(folder / "images" / name)
        depth = plane_depth(matrix, unbent_rays(told, LENS * scale, depth_size))
        millimetres = np.rint(depth * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "depths" / name)
        # The left half of the bent picture, up to the principal point, is not to be learned from.
        mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
        mask[:, :163] = 0
        Image.fromarray(mask).save(folder / "masks" / name)
        frames.append({
            "file_path": f"images/{name}", "depth_file_path": f"depths/{name}",
            "mask_path": f"masks/{name}",
            "transform_matrix": (matrix @ np.diag([1.0, -1, -1, 1])).tolist(),
        })  # fmt: skip
    top = {"w": WIDTH, "h": HEIGHT, "fl_x": 190.0, "fl_y": 193.0, "cx": 163.0, "cy": 117.0}
    content = {**top, **told, "applied_transform": np.eye(4)[:3].tolist(), "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


@pytest.mark.parametrize("told", [BARREL, FISHEYE], ids=["opencv", "fisheye"])
@pytest.mark.parametrize("depth_size", [(HEIGHT, WIDTH), (480, 640)], ids=["same", "finer"])
def test_a_bent_nerfstudio_recording_becomes_a_straight_clip(told, depth_size, tmp_path: Path):
    write_nerfstudio(tmp_path / "in", told, depth_size)
    summary = prepare(tmp_path / "in", tmp_path / "out", settings())
    assert any("straightened: lens" in note for note in summary.notes)
    clip = open_clips(tmp_path / "out", "train")[0]
    check_clip(clip, least=60)
    # The line x = cx stays where it is, up to the tangential coefficients.
    line = int(clip["intrinsics"][0, 2])
    assert clip["moving"][:, :, : line - 2].all()
    assert not clip["moving"][:, :, line + 2 :].any()


def test_the_check_of_positions_sees_a_lens_that_was_not_taken_out(tmp_path: Path):
    write_nerfstudio(tmp_path / "in", BARREL, (HEIGHT, WIDTH))
    content = json.loads((tmp_path / "in" / "transforms.json").read_text())
    straight = content | {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    (tmp_path / "in" / "transforms.json").write_text(json.dumps(straight))
    prepare(tmp_path / "in", tmp_path / "out", settings())
    with pytest.raises(AssertionError):
        check_clip(open_clips(tmp_path / "out", "train")[0], least=60)


def test_coefficients_without_a_certain_meaning_are_refused(tmp_path: Path):
    write_nerfstudio(tmp_path / "in", BARREL | {"k4": 0.1}, (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=r"frames\[0\]: k4, k5 and k6 have no certain meaning"):
        prepare(tmp_path / "in", tmp_path / "out", settings())


def test_a_tum_sequence_of_freiburg1_is_straightened(tmp_path: Path):
    """As the benchmark's pages describe it: clocks of their own, gaps in each of the lists."""
    folder = tmp_path / "in" / "rgbd_dataset_freiburg1_desk"
    fx, fy, cx, cy = posed_rgbd._TUM_CAMERAS["freiburg1"]
    lens = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])
    told = {"camera_model": "OPENCV"} | dict(
        zip(("k1", "k2", "p1", "p2", "k3"), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633), strict=True)
    )
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    start = 1305031102.175304
    for index, matrix in enumerate(cameras()):
        time, later = start + index / 30, start + index / 30 + 0.011
        Image.fromarray(dots(bent(world_points(), matrix, told, lens), (480, 640))).save(
            folder / "rgb" / f"{time:.6f}.png"
        )
        depth = plane_depth(matrix, unbent_rays(told, lens, (480, 640)))
        Image.fromarray(np.rint(depth * 5000).astype(np.uint16)).save(
            folder / "depth" / f"{later:.6f}.png"
        )
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{later:.6f} depth/{later:.6f}.png")
        turn = cv2.Rodrigues(matrix[:3, :3])[0][:, 0]
        half = np.linalg.norm(turn) / 2
        xyz = turn / max(2 * half, 1e-9) * np.sin(half)
        values = [*matrix[:3, 3], *xyz, np.cos(half)]
        line = " ".join(f"{value:.9f}" for value in values)
        lists["groundtruth"].append(f"{time + 0.004:.4f} {line}")
    # A picture before the tracking begins, and one after the last depth.
    lists["rgb"] = ["1305031101.9 rgb/early.png", *lists["rgb"], f"{start + 1:.6f} rgb/late.png"]
    for name, lines in lists.items():
        header = f"# {name}\n# file: 'rgbd_dataset_freiburg1_desk.bag'\n# timestamp ...\n"
        (folder / f"{name}.txt").write_text(header + "\n".join(lines) + "\n")
    summary = prepare(tmp_path / "in", tmp_path / "out", settings((480, 640)))
    assert any("2 frames without depth and camera" in note for note in summary.notes)
    check_clip(open_clips(tmp_path / "out", "train")[0], least=60)


def test_saturated_depth_of_seven_scenes_is_unknown(tmp_path: Path):
    clip = folders.make_clip()
    folder = tmp_path / "in" / "office" / "seq-01"
    folders.write_seven_scenes(folder, clip)
    holes = np.zeros(clip["depth"].shape, bool)
    holes[:, 5:17, 9:30] = True
    for index in range(len(holes)):
        file = folder / f"frame-{index:06d}.depth.png"
        values = np.array(Image.open(file))
        values[holes[index]] = 65535
        Image.fromarray(values.astype(np.uint16)).save(file)
    cut = CutConfig(ClipShape(folders.FRAMES, folders.HEIGHT, folders.WIDTH))
    options = IngestOptions(clip["intrinsics"])
    found = PrepareConfig(cut, options=options, split="train", check=False)
    prepare(tmp_path / "in", tmp_path / "out", found)
    got = open_clips(tmp_path / "out", "train")[0]
    assert got["level"] == "office"
    np.testing.assert_array_equal(got["depth"] == 0, holes)


def test_a_scannet_scene_with_two_cameras_and_lost_ends_is_read(tmp_path: Path):
    """Colour is larger than depth, has its own lens, and the first and last frames are lost."""
    folder = tmp_path / "in" / "scene0011_01"
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    colour = np.array([[380.0, 0, 320.0], [0, 380.0, 240.0], [0, 0, 1]])
    depth_lens = np.array([[185.0, 0, 161.0], [0, 186.0, 119.0], [0, 0, 1]])
    pinhole = {"camera_model": "OPENCV"}
    every = [None, *cameras(), None]
    for index, matrix in enumerate(every):
        seen = np.eye(4) if matrix is None else matrix
        at = bent(world_points(), seen, pinhole, colour)
        Image.fromarray(dots(at, (480, 640))).save(folder / "color" / f"{index}.jpg", quality=98)
        column, row = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
        rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(depth_lens).T
        depth = np.rint(plane_depth(seen, rays) * 1000).astype(np.uint16)
        Image.fromarray(depth).save(folder / "depth" / f"{index}.png")
        lost = np.full((4, 4), -np.inf)
        np.savetxt(folder / "pose" / f"{index}.txt", lost if matrix is None else matrix, "%.7f")
    for name, lens in (("color", colour), ("depth", depth_lens)):
        stored = np.eye(4)
        stored[:3, :3] = lens
        stored[:2, 2] -= 0.5
        np.savetxt(folder / "intrinsic" / f"intrinsic_{name}.txt", stored, "%.6f")
        np.savetxt(folder / "intrinsic" / f"extrinsic_{name}.txt", np.eye(4), "%.6f")
    assert "-inf" in (folder / "pose" / "0.txt").read_text()
    summary = prepare(tmp_path / "in", tmp_path / "out", settings((240, 320)))
    assert any("2 frames without a valid camera" in note for note in summary.notes)
    got = open_clips(tmp_path / "out", "train")[0]
    assert got["level"] == "scene0011"
    known = got["depth"] > 0
    assert known.mean() > 0.9
    got["depth"] = np.where(known, got["depth"], 1.0)
    lens = got["intrinsics"].astype(float)
    column, row = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(lens).T
    for depth, here, matrix in zip(got["depth"], known, got["cam_to_world"], strict=True):
        expected = plane_depth(matrix.astype(float), rays)
        np.testing.assert_allclose(depth[here], expected[here], rtol=4e-3)
