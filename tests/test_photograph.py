"""A real photograph with real depth: the Middlebury motorcycle that comes with scikit-image.

The left picture and its disparity make a scene; whether it is right is judged with the right
picture, which nothing else looks at: points of the scene must have their colours there.
Calibration as published: f = 994.978 px, baseline 0.193001 m, offset of disparity 31.086 px.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import skimage
from click.testing import CliRunner
from PIL import Image

from mirage_jax.cli.main import cli
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.rollout.scene import load_scene

DATA = Path(skimage.__file__).parent / "data"
LEFT, RIGHT, DISPARITY = (
    DATA / name for name in ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
)
FOCAL, BASELINE, OFFSET, CENTER = 994.978, 0.193001, 31.086, (311.693, 255.377)
LENS = f"{FOCAL},{FOCAL},{CENTER[0]},{CENTER[1]}"

pytestmark = pytest.mark.skipif(
    not all(file.is_file() for file in (LEFT, RIGHT, DISPARITY)),
    reason="this scikit-image came without the stereo pair",
)


def true_depth():
    return FOCAL * BASELINE / (np.load(DISPARITY)["arr_0"] + OFFSET)  # 0 where not known


def new_scene(folder, *arguments):
    fixed = ["scene", "new", LEFT, folder / "bike", "--intrinsics", LENS, *arguments]
    result = CliRunner().invoke(cli, [str(word) for word in fixed])
    assert result.exit_code == 0, result.output
    return load_scene(folder / "bike"), result.output


def psnr_in_the_right_picture(scene, height, width):
    """Return PSNR of the scene's colours where its points fall in the right picture."""
    lens = np.array(scene.camera.intrinsics, np.float64)
    factor = lens[0, 0] / FOCAL
    lens[0, 2] += OFFSET * factor
    right = Image.open(RIGHT).convert("RGB")
    # Cropped and resized as the left one was.
    margin = (right.width - width / factor) / 2, (right.height - height / factor) / 2
    box = (margin[0], margin[1], right.width - margin[0], right.height - margin[1])
    right = np.asarray(right.resize((width, height), Image.Resampling.BOX, box))
    pose = np.eye(4)
    pose[0, 3] = BASELINE
    smooth = scene.depth > 0
    points = unproject(scene.depth, scene.camera)[smooth]
    uv, _ = project(points, Camera(pose, lens))
    column, row = np.floor(uv).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = right[row[inside], column[inside]].astype(float)
    error = np.mean((seen - scene.image[smooth][inside]) ** 2)
    return 10 * np.log10(255**2 / error), inside.mean()


@pytest.mark.parametrize("size", [(500, 741), (240, 352)])
def test_points_of_the_scene_have_their_colours_in_the_other_eye(size, tmp_path):
    """Disparity of unknown scale and shift, aligned to one known depth in two hundred."""
    known = np.nan_to_num(true_depth(), posinf=0, neginf=0)
    known[np.arange(known.size).reshape(known.shape) % 199 != 0] = 0
    np.save(tmp_path / "known.npy", known)
    scene, said = new_scene(
        tmp_path, "--depth", DISPARITY, "--depth-as", "disparity",
        "--align-to", tmp_path / "known.npy", "--size", f"{size[0]}x{size[1]}",
    )  # fmt: skip
    assert "taken as unknown" in said
    found, share = psnr_in_the_right_picture(scene, *size)
    assert share > 0.8
    farther = dataclasses.replace(scene, depth=1.3 * scene.depth)
    wrong, _ = psnr_in_the_right_picture(farther, *size)
    assert found > 20
    assert found > wrong + 4
