"""The Doom recorder: its depth, cameras, determinism and which levels it touches."""

import cv2
import numpy as np
import pytest

from mirage_jax.data.clip import validate_clip
from mirage_jax.data.doom import cast
from mirage_jax.data.doom.engine import Engine, EngineSettings
from mirage_jax.data.doom.levels import SPLITS, Level, parse_level, require_recordable
from mirage_jax.data.doom.paths import PathConfig
from mirage_jax.data.doom.record import RecordConfig, record_clip, record_level
from mirage_jax.data.kinds import CEILING, FLOOR, SKY, WALL

MAP01 = Level("freedoom2.wad", "MAP01")
MAP07 = Level("freedoom2.wad", "MAP07")
E1M1 = Level("freedoom1.wad", "E1M1")


@pytest.fixture(scope="module")
def engine():
    with Engine(EngineSettings(skill=3), depth_buffer=True) as running:
        yield running


def _random_walk(engine: Engine, level: Level, seed: int, frames: int):
    """13-frame walks of worlds with 4 tics a frame and a command drawn anew every frame."""
    rng = np.random.default_rng(seed)
    engine.reset(level, seed)
    engine.act((0, 0, 0), 10)
    for _ in range(frames):
        engine.act((rng.uniform(0, 16), rng.uniform(-6, 6), rng.uniform(-3, 3)), 4)
        yield engine.observe()


@pytest.mark.parametrize("level", [MAP01, E1M1], ids=str)
def test_depth_agrees_with_the_engines_coarse_buffer_up_to_its_steps(engine, level):
    farther, nearer, squares = [], [], []
    for seen in list(_random_walk(engine, level, seed=3, frames=12))[::3]:
        exact = cast.cast_depth(
            engine.map.geometry,
            seen.floor,
            seen.ceiling,
            eye=seen.eye,
            pinhole=cast.doom_pinhole(640, 480),
        )
        value = seen.depth_buffer.astype(np.float64)
        # The buffer has its own linear scales for walls and for floors and ceilings.
        coarse = np.where(exact.kind == WALL, 7.104 * value + 16.5, 7.159 * value + 14.5)
        valid = np.isin(exact.kind, (WALL, FLOOR, CEILING)) & (exact.depth < 1700)
        valid &= ~np.kron(seen.sprite, np.ones((5, 5), bool))
        error, tolerance = (coarse - exact.depth)[valid], (8 + 0.03 * exact.depth)[valid]
        farther.append(np.mean(error > tolerance))
        nearer.append(np.mean(error < -tolerance))
        squares.append(np.mean(error[np.abs(error) < tolerance] ** 2))
    assert np.median(farther) < 0.005
    assert np.median(nearer) < 0.015
    # A step is 7.16 map units, 2.07 rms by quantisation alone; the rest is the bin centres fit.
    assert np.sqrt(np.mean(squares)) < 3.0


def _fetch_psnr(source, target, intrinsics) -> float:
    """PSNR of the target's colours fetched from the source through depth and cameras."""
    height, width = target.depth.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics.astype(float)).T
    points = np.concatenate([rays * target.depth[..., None], np.ones((height, width, 1))], -1)
    there = points @ (np.linalg.inv(source.cam_to_world) @ target.cam_to_world).T
    z = np.maximum(there[..., 2], 1e-6)
    pixel = (there[..., :3] / z[..., None]) @ intrinsics.astype(float).T
    x, y = pixel[..., 0].astype(np.float32), pixel[..., 1].astype(np.float32)
    color = cv2.remap(source.rgb, x - 0.5, y - 0.5, cv2.INTER_LINEAR).astype(np.float64)
    valid = (there[..., 2] > 0.05) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    row, column = y.clip(0, height - 1).astype(int), x.clip(0, width - 1).astype(int)
    valid &= np.abs(source.depth[row, column] - z) < 0.02 * z + 0.02
    valid &= ~target.sprite & ~source.sprite[row, column]
    valid &= (target.depth > 0) & (target.kind != SKY)
    return 10 * np.log10(255**2 / np.mean((color - target.rgb)[valid] ** 2))


@pytest.mark.parametrize(
    ("level", "expected"),
    # Measured before this code existed, with another implementation and other walks.
    [(MAP01, {1: 34.2, 4: 32.1, 8: 30.1}), (MAP07, {1: 31.0, 4: 29.0, 8: 27.0})],
    ids=str,
)
def test_cameras_and_depth_carry_colours_between_frames_as_well_as_known(engine, level, expected):
    scores = {gap: [] for gap in expected}
    for seed in range(4):
        seen = list(_random_walk(engine, level, seed, frames=13))
        for gap in expected:
            scores[gap] += [
                _fetch_psnr(seen[i], seen[i + gap], engine.intrinsics) for i in range(13 - gap)
            ]
    for gap, known in expected.items():
        assert abs(np.mean(scores[gap]) - known) < 1.0, (gap, np.mean(scores[gap]))


def test_a_clip_is_a_function_of_its_seed_alone(engine):
    paths = PathConfig(walk=1, look_around=0, out_and_back=0)
    config = RecordConfig(frames=9, min_travel_metres=0.5, paths=paths)
    first, _ = record_clip(engine, MAP01, 5, 1, config)
    record_clip(engine, MAP07, 0, 1, config)
    with Engine(EngineSettings(skill=3)) as other:
        second, _ = record_clip(other, MAP01, 5, 1, config)
    different, _ = record_clip(engine, MAP01, 5, 2, config)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert not np.array_equal(first["cam_to_world"], different["cam_to_world"])


def test_an_out_and_back_clip_leaves_and_returns_to_the_same_camera(engine):
    config = RecordConfig(frames=61, paths=PathConfig(walk=0, look_around=0, out_and_back=1))
    clip, _ = record_clip(engine, MAP01, 0, 0, config)
    assert validate_clip(clip) == (61, 96, 128)
    assert clip["path"] == "out_and_back"
    cameras = clip["cam_to_world"].astype(np.float64)
    distance = np.linalg.norm(cameras[:, :3, 3] - cameras[0, :3, 3], axis=1)
    assert distance.max() > 2.0
    assert distance[-1] < 0.1
    still = ~(clip["sprite"][0] | clip["sprite"][-1])
    change = clip["rgb"][0].astype(float) - clip["rgb"][-1]
    assert np.abs(change[still]).mean() < 4.0


def test_recorded_turns_are_smooth_and_never_faster_than_a_glance(engine):
    paths = PathConfig(walk=0, look_around=1, out_and_back=0)
    clip, _ = record_clip(engine, E1M1, 1, 0, RecordConfig(frames=81, paths=paths))
    forward = clip["cam_to_world"][:, :2, 2].astype(np.float64)
    yaw = np.unwrap(np.arctan2(forward[:, 1], forward[:, 0]))
    turns = np.degrees(np.diff(yaw))
    assert np.ptp(np.degrees(yaw)) > 60
    assert np.abs(turns).max() < 7.0
    assert np.abs(np.diff(turns)).max() < 1.5


@pytest.mark.parametrize(
    ("level", "split"),
    [("freedoom2/MAP20", "val"), ("freedoom1/E2M1", "train"), ("freedoom2/MAP17", "train")],
)
def test_a_level_outside_the_split_is_refused(engine, level, split):
    with pytest.raises(ValueError, match=f"{level} for split '{split}'"):
        next(record_level(engine, parse_level(level), split, 1, 0, RecordConfig()))


def test_splits_share_no_level():
    assert len(SPLITS["train"]) == 25
    assert len(SPLITS["val"]) == 3
    assert not set(SPLITS["train"]) & set(SPLITS["val"])
    for split, levels in SPLITS.items():
        for level in levels:
            require_recordable(level, split)
