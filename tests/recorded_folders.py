"""Folders of every layout that `mirage prepare` reads, written from a procedural clip.

The clip is the truth: what is prepared at the same size must be the same clip again.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mirage_jax.data.procedural import ProceduralConfig, render_clip
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import (
    CameraPath,
    Geometry,
    path_of,
    save_geometry,
    write_cameras,
)
from mirage_jax.geometry.depth_files.formats import write_depth

FRAMES, HEIGHT, WIDTH = 9, 48, 64


def make_clip(seed: int = 0, frames: int = FRAMES, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> dict:
    """A clip of a room in which nothing moves but the camera, in steps as of a recording."""
    # A walk is drawn in as many steps as it has frames: the first of a long one are small steps.
    config = ProceduralConfig(frames=81, height=hw[0], width=hw[1], moving=False)
    from mirage_jax.data.procedural import default_walk

    return render_clip(seed, config, cam_to_world=default_walk(seed, config)[:frames])


def cameras_of(clip: dict) -> CameraPath:
    count, height, width = clip["rgb"].shape[:3]
    lens = np.tile(clip["intrinsics"], (count, 1, 1))
    return path_of(Camera(clip["cam_to_world"], lens), (height, width))


def write_pictures(folder: Path, clip: dict, name: str = "{:05d}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, rgb in enumerate(clip["rgb"]):
        Image.fromarray(rgb).save(folder / name.format(index))


def write_depth_pictures(
    folder: Path, clip: dict, name: str = "{:05d}.png", steps: float = 1000
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, depth in enumerate(clip["depth"].astype(np.float64)):
        Image.fromarray(np.rint(depth * steps).astype(np.uint16)).save(folder / name.format(index))


def write_geometry(folder: Path, clip: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    geometry = Geometry(
        clip["depth"].astype(np.float32), cameras_of(clip).camera(), clip["rgb"], ~clip["moving"]
    )
    save_geometry(folder / "geometry.npz", geometry)


def write_tum(folder: Path, clip: dict) -> None:
    write_pictures(folder / "rgb", clip)
    write_depth_pictures(folder / "depth", clip, steps=5000)
    times = 1000 + np.arange(len(clip["rgb"])) / 30
    cameras = cameras_of(clip)
    # Depth comes 5 ms later; cameras at thrice the rate, so that most belong to no picture.
    for name, shift in (("rgb", 0.0), ("depth", 0.005)):
        lines = [f"{time + shift:.6f} {name}/{i:05d}.png" for i, time in enumerate(times)]
        (folder / f"{name}.txt").write_text("# a comment\n" + "\n".join(lines) + "\n")
    every = np.repeat(np.arange(len(times)), 3)
    dense = times[every] + np.tile([-1 / 90, 0, 1 / 90], len(times))
    path = CameraPath(cameras.cam_to_world[every], times=dense)
    write_cameras(folder / "groundtruth.txt", path, "tum")


def write_seven_scenes(folder: Path, clip: dict) -> None:
    write_pictures(folder, clip, "frame-{:06d}.color.png")
    write_depth_pictures(folder, clip, "frame-{:06d}.depth.png")
    for index, matrix in enumerate(clip["cam_to_world"]):
        np.savetxt(folder / f"frame-{index:06d}.pose.txt", matrix, "%.9e")


def write_scannet(folder: Path, clip: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder / "color", clip, "{}.png")
    write_depth_pictures(folder / "depth", clip, "{}.png")
    for name in ("pose", "intrinsic"):
        (folder / name).mkdir()
    for index, matrix in enumerate(clip["cam_to_world"]):
        np.savetxt(folder / "pose" / f"{index}.txt", matrix, "%.9f")
    lens = np.eye(4)
    lens[:3, :3] = clip["intrinsics"]
    lens[:2, 2] -= 0.5
    for name in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{name}.txt", lens, "%.6f")


def write_nerfstudio(folder: Path, clip: dict, depth: bool = True) -> None:
    write_pictures(folder / "images", clip, "{}.png")
    names = tuple(f"images/{i}.png" for i in range(len(clip["rgb"])))
    cameras = cameras_of(clip)
    # Out of order, as some tools leave them.
    order = np.argsort(-np.arange(len(names)) % 4, kind="stable")
    path = CameraPath(cameras.cam_to_world, cameras.intrinsics, cameras.hw, names=names)
    write_cameras(folder / "transforms.json", path.taken(order))
    if depth:
        write_depth_pictures(folder / "depths", clip, "{}.png")
        content = json.loads((folder / "transforms.json").read_text())
        for frame in content["frames"]:
            frame["depth_file_path"] = frame["file_path"].replace("images", "depths")
        (folder / "transforms.json").write_text(json.dumps(content))


def write_vipe(folder: Path, clip: dict) -> None:
    import zipfile

    write_cameras(folder, cameras_of(clip), "vipe")
    write_pictures(folder / "rgb", clip)
    write_depth_pictures(folder / "loose", clip)
    with zipfile.ZipFile(folder / "depth.zip", "w") as archive:
        for file in sorted((folder / "loose").iterdir()):
            archive.write(file, file.name)
            file.unlink()
    (folder / "loose").rmdir()


def write_realestate(folder: Path, clip: dict, depth: bool = True) -> None:
    write_pictures(folder / "abc", clip)
    write_cameras(folder / "abc.txt", cameras_of(clip), "realestate10k")
    if depth:
        write_depth(folder / "abc.depth.npz", clip["depth"].astype(np.float32))


WRITERS = {
    "geometry": write_geometry,
    "tum": write_tum,
    "7scenes": write_seven_scenes,
    "scannet": write_scannet,
    "nerfstudio": write_nerfstudio,
    "vipe": write_vipe,
    "realestate10k": write_realestate,
}
