"""Real photographs with real depth: the memory is written from the first and decoded at the last.

`python -m benchmarks.castel --download` fetches the Debian package visp-images-data (75 MB, needs
apt-get and dpkg-deb) into `--out` and unpacks it; `--data` names a folder that has it already. The
sequence castel has 30 grey pictures and depth of a depth camera that moves round a model castle.
Its pictures are GPL-2 data and are not part of this repository.

Depth is brought to the colour camera; poses are estimated from tracked corners of the first picture
(so they are fit to these very pictures and good for checks of re-projection, not as ground truth).
Printed are, for some frames: rotation, median error of re-projected corners, and the PSNR of pixels
of the first picture seen from there, beside that of the first picture left as it is. Then, at the
frame size of the shipped world: PSNR and SSIM of the decoded read of a memory that holds the first
picture alone, against the photograph; the codec's ceiling, the same re-projection by pixels, and
the first picture as it is, over the same pixels. With `--lpips FILE` (weights of LPIPS 0.1) LPIPS
stands beside them; pixels that do not count are those of the photograph in both pictures, so they
differ nowhere. `sheet.png` shows the pictures. The last line is JSON.

Conventions: lengths in metres until the scene is scaled, so that the middle of it is as far away as
in the worlds that the shipped one was trained on. Read next: `mirage_jax/eval/image.py`.
"""

import argparse
import functools
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from skimage.metrics import structural_similarity

from mirage_jax import world_model
from mirage_jax.eval import image
from mirage_jax.eval.metrics.lpips import Lpips
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.rollout.decode import reconstruct, to_uint8
from mirage_jax.rollout.scene import Scene, fit_scene
from mirage_jax.rollout.sheet import write_sheet
from mirage_jax.rollout.shipped import DEFAULT_WORLD
from mirage_jax.rollout.world import World, load_world

PACKAGE = "visp-images-data"
INSIDE = "usr/share/visp-images-data/ViSP-images/mbt-depth/castel/castel"
STEP = 0.00012498664727900177  # metres of one step of depth
HW = (480, 640)
COLOUR = np.array([[615.1675, 0, 312.189], [0, 615.1675, 243.437], [0, 0, 1]])
DEPTH = np.array([[476.0536, 0, 311.4846], [0, 476.0535, 246.2832], [0, 0, 1]])
# From depth camera to colour camera; the package does not hold it. Fitted to the pictures.
SHIFT, TURN = np.array([0.0244, 0.0028, -0.0017]), np.array([0.0034, 0.0008, -0.0005])
SHOWN = (10, 20, 29)
MIDDLE = 4.0  # scene units
STILL = 3  # latent frames of a camera at rest: the last has one like it before


class Frame(NamedTuple):
    """A picture [H, W] uint8 with z-depth [H, W] in metres, 0 = unknown."""

    grey: np.ndarray
    depth: np.ndarray


def fetch(folder: Path) -> Path:
    """Download the package and unpack it; return the folder of the sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / INSIDE).is_dir():
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (file,) = folder.glob(f"{PACKAGE}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file.name, "."], cwd=folder, check=True)
        file.unlink()
    return folder / INSIDE


def load(folder: Path) -> list[Frame]:
    """Read all pictures, with depth as the colour camera sees it."""
    frames = []
    for path in sorted(folder.glob("image_*.pgm")):
        with (folder / f"depth_{path.stem}.bin").open("rb") as file:
            height, width = np.fromfile(file, np.int32, 2)
            raw = np.fromfile(file, np.uint16, height * width).reshape(height, width)
        frames.append(Frame(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), registered(raw * STEP)))
    if not frames:
        raise FileNotFoundError(f"{folder}: no image_*.pgm; give --download or another --data")
    return frames


def registered(depth: np.ndarray) -> np.ndarray:
    """Return depth as the colour camera sees it: the nearest of the points on each pixel."""
    to_colour = np.eye(4)
    to_colour[:3, :3], to_colour[:3, 3] = cv2.Rodrigues(TURN)[0], SHIFT
    points = unproject(depth, Camera(np.eye(4), DEPTH), half_cell=False)[depth > 0]
    uv, z = project(points, Camera(np.linalg.inv(to_colour), COLOUR))
    # The colour camera's pixels are smaller: a point covers those around it.
    found = np.full(HW, np.inf)
    for row in (-0.5, 0.5):
        for column in (-0.5, 0.5):
            x, y = np.round(uv + (column, row)).astype(int).T
            inside = (x >= 0) & (x < HW[1]) & (y >= 0) & (y < HW[0]) & (z > 0)
            np.minimum.at(found, (y[inside], x[inside]), z[inside])
    return np.where(np.isfinite(found), found, 0.0)


def track(frames: list[Frame]) -> tuple[list[np.ndarray], list[float]]:
    """Return cam_to_world of every frame, the first at the origin, and median errors in pixels."""
    first = frames[0]
    corners = cv2.goodFeaturesToTrack(first.grey, 1500, 0.005, 6)[:, 0]
    z = first.depth[tuple(np.round(corners[:, ::-1]).astype(int).T)]
    corners, z = corners[z > 0], z[z > 0]
    rays = np.concatenate([corners, np.ones((len(corners), 1))], 1) @ np.linalg.inv(COLOUR).T
    points, now, alive = rays * z[:, None], corners.copy(), np.ones(len(corners), bool)
    poses, errors = [np.eye(4)], [0.0]
    look = {"winSize": (21, 21), "maxLevel": 4}
    for before, frame in zip(frames, frames[1:], strict=False):
        there, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, frame.grey, now, None, **look)
        back, _, _ = cv2.calcOpticalFlowPyrLK(frame.grey, before.grey, there, None, **look)
        alive &= (found[:, 0] > 0) & (np.linalg.norm(back - now, axis=1) < 0.7)
        now = there
        given = points[alive], now[alive].astype(np.float64), COLOUR, None
        _, turn, shift, good = cv2.solvePnPRansac(
            *given, reprojectionError=2.0, iterationsCount=500, flags=cv2.SOLVEPNP_EPNP
        )
        chosen = good[:, 0]
        turn, shift = cv2.solvePnPRefineLM(
            given[0][chosen], given[1][chosen], *given[2:], turn, shift
        )
        seen, _ = cv2.projectPoints(given[0], turn, shift, COLOUR, None)
        errors.append(float(np.median(np.linalg.norm(seen[:, 0] - given[1], axis=1))))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
        poses.append(np.linalg.inv(pose))
    return poses, errors


def reproject(
    first: Scene, depth: np.ndarray, camera: Camera, tolerance: float = 0.03
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a scene's picture as another camera sees them, and where it does.

    Args:
        first: the scene.
        depth: [H, W] of the other view.
        camera: of it.
        tolerance: largest relative difference of depth of what counts as the same surface.
    """
    points = unproject(depth, camera).reshape(-1, 3)
    uv, z = project(points, first.camera)
    uv = np.where(np.isfinite(uv), uv, -1.0).astype(np.float32).reshape(*depth.shape, 2)
    sampled = cv2.remap(first.image, uv - 0.5, None, cv2.INTER_LINEAR)
    there = cv2.remap(first.depth.astype(np.float32), uv - 0.5, None, cv2.INTER_NEAREST)
    same = np.abs(there - z.reshape(depth.shape)) < tolerance * there
    return sampled, (depth > 0) & (there > 0) & same


def angle(pose: np.ndarray) -> float:
    """Return how far a pose turns, in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1))))


def scene_of(frame: Frame, pose: np.ndarray, scale: float) -> Scene:
    """Return a frame as a scene, lengths times `scale`."""
    moved = pose.copy()
    moved[:3, 3] *= scale
    # Calibrated with the centre of the top-left pixel at (0, 0); ours is at (0.5, 0.5).
    lens = COLOUR + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return Scene(
        name="castel",
        image=np.repeat(frame.grey[..., None], 3, -1),
        depth=(frame.depth * scale).astype(np.float32),
        keep=np.ones(HW, bool),
        camera=Camera(moved.astype(np.float32), lens.astype(np.float32)),
    )


@functools.partial(jax.jit, static_argnums=0)
def _look(spec: Any, params: Any, picture: Any, first: Any, grid: Camera, still: Camera) -> Any:
    """Write a picture at one camera and decode what the memory shows to a camera at rest."""
    token = world_model.encode_held(spec, params, picture[None])[:, None]
    depth, keep = world_model.grid_depth(*first, spec.grid_hw)
    memory, _ = world_model.remember(
        spec,
        world_model.empty_memory(spec, 1),
        token,
        depth[None, None],
        keep[None, None],
        jax.tree.map(lambda leaf: leaf[None, None], grid),
        0,
    )
    reference = jax.tree.map(lambda leaf: leaf[:, 0], still)
    found = world_model.observe(spec, params, memory, still, spec.grid_hw, reference)
    videos = [world_model.decode(spec, params, v)[0, -1] for v in (found.base, found.filled)]
    return (*videos, found.read.visibility[0, -1])


def remembered(world: World, first: Scene, camera: Camera) -> dict[str, np.ndarray]:
    """Write the first picture and decode what the memory shows to a camera.

    Returns:
        `read`, what the denoiser is given, `tokens`, the stored tokens as they are, both
        [H, W, 3], and `seen` [H, W] where the memory showed something.
    """
    spec = world.spec
    grid = world_model.grid_camera(first.camera, spec.frame_hw, spec.grid_hw)
    there = world_model.grid_camera(camera, spec.frame_hw, spec.grid_hw)
    still = Camera(*(np.repeat(leaf[None, None], STILL, 1) for leaf in there))
    picture = jnp.asarray(first.image, jnp.float32) / 127.5 - 1.0
    given = jnp.asarray(first.depth), jnp.asarray(first.keep)
    base, filled, seen = _look(spec, world.params, picture, given, grid, still)
    stride = spec.height // spec.grid_hw[0]
    return {
        "read": np.asarray(to_uint8(np.asarray(base)[None])[0]),
        "tokens": np.asarray(to_uint8(np.asarray(filled)[None])[0]),
        "seen": np.asarray(seen).repeat(stride, 0).repeat(stride, 1),
    }


def scores(
    found: dict[str, np.ndarray], truth: np.ndarray, where: np.ndarray, lpips: Lpips | None = None
) -> dict[str, Any]:
    """Return PSNR and SSIM (whose windows reach beyond) over some pixels, and LPIPS if given."""
    found_scores = {}
    for name, picture in found.items():
        _, local = structural_similarity(
            picture[..., 0], truth[..., 0], data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        found_scores[name] = {
            "psnr": round(image.masked_psnr(picture, truth, where), 2),
            "ssim": round(float(local[where].mean()), 3),
        }
        if lpips is not None:
            shown = np.where(where[..., None], picture, truth)
            found_scores[name][lpips.name] = round(float(lpips(shown[None], truth[None])[0]), 4)
    return found_scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.castel", description=__doc__)
    parser.add_argument("--download", action="store_true", help=f"fetch {PACKAGE} from Debian")
    parser.add_argument("--data", type=Path, help="folder with image_0000.pgm and so on")
    parser.add_argument("--out", type=Path, default=Path("outputs/castel"))
    parser.add_argument("--lpips", type=Path, help="weights of LPIPS 0.1")
    options = parser.parse_args()
    if options.data is None and not (options.download or (options.out / INSIDE).is_dir()):
        parser.error("give --download (75 MB from Debian) or --data")
    lpips = Lpips(options.lpips) if options.lpips else None
    frames = load(options.data or fetch(options.out))
    poses, errors = track(frames)
    scale = MIDDLE / float(np.median(frames[0].depth[frames[0].depth > 0]))
    scenes = {k: scene_of(frames[k], poses[k], scale) for k in (0, *SHOWN)}
    result: dict[str, Any] = {"reprojection": {}, "memory": {}}
    for k in SHOWN:
        sampled, valid = reproject(scenes[0], scenes[k].depth, scenes[k].camera)
        row = {
            "degrees": round(angle(poses[k]), 1),
            "error_px": round(errors[k], 2),
            "valid": round(float(valid.mean()), 3),
            "psnr": round(image.masked_psnr(sampled, scenes[k].image, valid), 2),
            "first_picture": round(image.masked_psnr(scenes[0].image, scenes[k].image, valid), 2),
        }
        result["reprojection"][k] = row
        print(f"frame {k}: {row}")
    world = load_world(DEFAULT_WORLD)
    small = {k: fit_scene(scene, world.spec.frame_hw) for k, scene in scenes.items()}
    rows = []
    for k in SHOWN:
        truth = small[k].image
        shown = remembered(world, small[0], small[k].camera)
        sampled, valid = reproject(small[0], small[k].depth, small[k].camera)
        where = valid & shown.pop("seen")
        length = 1 + (STILL - 1) * world.spec.chunk.temporal_stride
        ceiling = reconstruct(world, np.repeat(truth[None, None], length, 1))[0, -1]
        pictures = {"ceiling": ceiling, **shown, "pixels": sampled, "first": small[0].image}
        result["memory"][k] = scores(pictures, truth, where, lpips) | {
            "share": round(float(where.mean()), 3)
        }
        print(f"memory at frame {k}: {result['memory'][k]}")
        rows.append([truth, *pictures.values()])
    titles = ["photograph", "codec", "memory, learned read", "memory, tokens", "pixels", "frame 0"]
    write_sheet(options.out / "sheet.png", rows, titles, f"castel, frames {SHOWN} from frame 0")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
