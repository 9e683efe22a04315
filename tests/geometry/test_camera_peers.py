"""Agreement with independent readers from PyPI, where they are installed: pycolmap and evo."""

import numpy as np
import pytest
from camera_path_cases import position_error, random_path, rotation_error, written

from mirage_jax.geometry.camera_files import CameraPath, read_cameras
from mirage_jax.geometry.path_alignment import umeyama


def names_in_order(count: int) -> tuple[str, ...]:
    return tuple(f"img{index}.png" for index in range(count))


@pytest.fixture
def path() -> CameraPath:
    path = random_path(12, seed=4)
    lens = path.intrinsics.copy()
    lens[6:, 0, 0] += 10
    return CameraPath(path.cam_to_world, lens, path.hw, path.times, names_in_order(12))


@pytest.mark.parametrize("kind", ["colmap-text", "colmap-binary"])
def test_pycolmap_reads_what_we_write_and_sees_the_same_pixels(kind, path, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(written(tmp_path, kind, path)))
    assert model.num_images() == 12
    for image in model.images.values():
        index = path.names.index(image.name)
        given = image.cam_from_world
        matrix = (given() if callable(given) else given).matrix()
        expected = np.linalg.inv(path.cam_to_world[index])[:3]
        np.testing.assert_allclose(matrix, expected, atol=1e-9)
        lens = model.cameras[image.camera_id]
        assert (lens.height, lens.width) == path.hw
        np.testing.assert_allclose(lens.calibration_matrix(), path.intrinsics[index], rtol=1e-12)
        point = path.cam_to_world[index] @ [0.2, -0.1, 2.0, 1.0]
        row = path.intrinsics[index] @ [0.2, -0.1, 2.0]
        np.testing.assert_allclose(image.project_point(point[:3]), row[:2] / row[2], atol=1e-6)


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_we_read_what_pycolmap_writes(kind, path, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(written(tmp_path, "colmap-binary", path)))
    (tmp_path / "out").mkdir()
    getattr(model, f"write_{kind}")(str(tmp_path / "out"))
    found = read_cameras(tmp_path / "out")
    assert found.names == path.names
    assert rotation_error(found, path) <= 1e-6
    assert position_error(found, path) <= 1e-6
    np.testing.assert_allclose(found.intrinsics, path.intrinsics, rtol=1e-9)


def test_evo_reads_what_we_write_and_we_read_what_it_writes(path, tmp_path):
    files = pytest.importorskip("evo.tools.file_interface")
    track = files.read_tum_trajectory_file(str(written(tmp_path, "tum", path)))
    np.testing.assert_allclose(track.timestamps, path.times, atol=1e-9)
    np.testing.assert_allclose(np.stack(track.poses_se3), path.cam_to_world, atol=1e-9)
    files.write_tum_trajectory_file(str(tmp_path / "theirs.tum"), track)
    found = read_cameras(tmp_path / "theirs.tum")
    assert rotation_error(found, path) <= 1e-6
    assert position_error(found, path) <= 1e-6


@pytest.mark.parametrize("with_scale", [True, False])
def test_evo_finds_the_same_alignment(with_scale):
    geometry = pytest.importorskip("evo.core.geometry")
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(2, 30, 3))
    target = target + 3 * source @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    found = umeyama(source, target, with_scale)
    rotation, translation, scale = geometry.umeyama_alignment(source.T, target.T, with_scale)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, translation, atol=1e-9)
    assert found.scale == pytest.approx(scale)
