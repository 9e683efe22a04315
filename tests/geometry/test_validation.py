"""Bad cameras and bad depth are refused with the argument, what was got, and the cure."""

import numpy as np
import pytest

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.depth import validate_depth

INTRINSICS = np.array([[64.0, 0, 64.0], [0, 64.0, 48.0], [0, 0, 1.0]])


def poses(count: int = 4) -> np.ndarray:
    return np.tile(np.eye(4), (count, 1, 1))


def changed(array: np.ndarray, index, value) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def test_good_cameras_pass_and_intrinsics_are_repeated():
    camera = validate_camera(Camera(poses(), INTRINSICS))
    assert camera.intrinsics.shape == (4, 3, 3)
    single = validate_camera(Camera(np.eye(4, dtype=np.float16).tolist(), INTRINSICS.tolist()))
    assert single.cam_to_world.shape == (4, 4)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (
            poses()[:, :3],
            r"scene.cam_to_world has the wrong shape: got \(4, 3, 4\).*Append",
        ),
        (poses()[:0], "scene.cam_to_world is empty"),
        (
            changed(poses(), (2, 0, 3), np.nan),
            "not finite: got 1 such .* at index 2",
        ),
        (
            changed(poses(), (3, 1, 1), 1.1),
            "not a rotation: got columns .*1.1.* at index 3",
        ),
        (changed(poses(), (1, 0, 0), -1.0), "is mirrored: got a rotation .* index 1.*OpenGL"),
        (changed(poses(), (0, 3, 0), 2.0), "wrong last row: got .* at index 0.*transposed"),
        (poses() * 0, "wrong last row"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        validate_camera(Camera(matrix, INTRINSICS), "scene")


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        (changed(INTRINSICS, (0, 0), 0.0), r"focal lengths that are not positive: got .*0\.0, 64"),
        (changed(INTRINSICS, (1, 1), -64.0), "focal lengths that are not positive"),
        (INTRINSICS.T, "scene.intrinsics is not of the form.*Transpose"),
        (changed(INTRINSICS, (0, 2), np.inf), "scene.intrinsics has values that are not finite"),
        (np.eye(4), r"scene.intrinsics has the wrong shape: got \(4, 4\), expected"),
        (np.tile(INTRINSICS, (3, 1, 1)), r"another batch .* got \(3, 3, 3\) against \(4, 4, 4\)"),
    ],
)
def test_bad_intrinsics_are_refused(intrinsics, message):
    with pytest.raises(ValueError, match=message):
        validate_camera(Camera(poses(), intrinsics), "scene")


def test_things_that_are_no_cameras_are_type_errors():
    with pytest.raises(TypeError, match="camera is not a camera: got ndarray"):
        validate_camera(np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="does not hold numbers: got dtype <U"):
        validate_camera(Camera(np.full((4, 4), "a"), INTRINSICS))


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros((6, 8)), "clip.depth is zero everywhere: got no pixel"),
        (changed(np.ones((3, 6, 8)), 1, 0.0), r"zero everywhere in frame \[1\]"),
        (changed(np.ones((6, 8)), (2, 3), np.nan), r"not finite: got 1 of 48 .*\(2, 3\).*to 0"),
        (changed(np.ones((6, 8)), (2, 3), np.inf), "not finite"),
        (-np.ones((6, 8)), "is negative: got a minimum of -1"),
        (np.ones(6), r"wrong shape: got \(6,\), expected \[..., 6, 8\]"),
        (np.ones((6, 8, 1)), r"wrong shape: got \(6, 8, 1\).*trailing channel"),
        (np.ones((0, 6, 8)), "wrong shape"),
    ],
)
def test_bad_depth_is_refused(depth, message):
    with pytest.raises(ValueError, match=message):
        validate_depth(depth, "clip.depth", hw=(6, 8))


def test_good_depth_passes_and_half_precision_is_widened():
    depth = changed(np.ones((2, 6, 8), np.float16), (0, 1), 0)
    assert validate_depth(depth).dtype == np.float32
    with pytest.raises(TypeError, match="depth does not hold numbers: got dtype bool"):
        validate_depth(np.ones((6, 8), bool))
