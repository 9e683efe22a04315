"""Training windows: pure draws, and geometry that holds for what memory and targets are made of."""

import dataclasses

import numpy as np
import pytest

from mirage_jax.data.captions import ClipTexts
from mirage_jax.data.sampling import clip_indices
from mirage_jax.data.text_cache import TextSpec, add_texts, open_texts
from mirage_jax.geometry.camera import Camera, index_camera
from mirage_jax.geometry.projection import unproject
from mirage_jax.models.config import ChunkConfig, ReferenceConfig
from mirage_jax.train import latents as latents_lib
from mirage_jax.train.latents import Latents
from mirage_jax.train.windows.config import WindowConfig
from mirage_jax.train.windows.draw import draw_batch, draw_window, gather
from mirage_jax.train.windows.references import choose
from mirage_jax.train.windows.window import MemoryFrame, Window

FRAMES, HW, CHANNELS = 13, (4, 6), 3
CHUNK = ChunkConfig(latent_frames=4, preceding=2, temporal_stride=4)
CONFIG = WindowConfig(memory_frames=3, memory_off=0.0, still_fraction=0.0)


def numbered_latents(clips: int = 2) -> Latents:
    """Latents whose values tell which view, direction and frame they are of."""
    view, way, frame = np.meshgrid(range(2), range(2), range(FRAMES), indexing="ij")
    video = np.stack([view, way, frame], -1).astype(np.float16)
    video = np.broadcast_to(video[None, ..., None, None, :], (clips, 2, 2, FRAMES, *HW, CHANNELS))
    grid = np.broadcast_to(
        np.arange(1.0, FRAMES + 1, dtype=np.float32)[:, None, None], (clips, 2, FRAMES, *HW)
    )
    poses = np.tile(np.eye(4, dtype=np.float32), (clips, 2, FRAMES, 1, 1))
    poses[..., 0, 3] = np.arange(FRAMES)
    return Latents(
        video=video,
        single=video[:, :, 0] + np.float16(100),
        held=video[:, :, 0] + np.float16(200),
        depth=grid,
        keep=np.ones(grid.shape, bool),
        known=np.ones(grid.shape, bool),
        sky=np.zeros(grid.shape, bool),
        cam_to_world=poses,
        intrinsics=np.tile(np.eye(3, dtype=np.float32), (clips, 2, 1, 1)),
    )


LATENTS = numbered_latents()


def draw(step, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return draw_batch(
        LATENTS,
        config,
        CHUNK,
        seed=1,
        step=step,
        clips=clip_indices(1, step, 4, len(LATENTS.video)),
    )


def test_a_batch_is_a_pure_function_of_seed_and_step():
    for name, array in draw(7).items():
        np.testing.assert_array_equal(array, draw(7)[name])
    assert any((a != b).any() for a, b in zip(draw(7).values(), draw(8).values(), strict=True))


def test_the_first_rows_start_from_a_picture_and_the_others_from_a_frame_of_the_video():
    for step in range(20):
        first = draw(step, first_fraction=0.5)["target"][:, 0, 0, 0, 2]
        assert (first[:2] >= 100).all()
        assert (first[2:] < 100).all()


def test_targets_follow_each_other_and_come_after_the_preceding_frames():
    for step in range(20):
        batch = draw(step, first_fraction=0.0)
        frames = np.concatenate([batch["preceding"], batch["target"]], axis=1)[..., 0, 0, 2]
        np.testing.assert_array_equal(np.diff(frames, axis=1), 1)


def test_memory_never_holds_a_frame_that_is_to_be_generated_but_may_hold_its_way_out():
    rng = np.random.default_rng(0)
    came_back = 0
    for number in range(300):
        window = draw_window(rng, LATENTS, 0, number % 3 == 0, CONFIG, CHUNK)
        same = [m.position for m in window.memory if not m.backwards]
        assert max(same) == window.start == same[-1]
        places = [FRAMES - 1 - m.position for m in window.memory if m.backwards]
        came_back += any(window.start < p < window.start + 4 for p in places)
        assert len(window.memory) <= CONFIG.memory_frames
    assert came_back > 10


def test_memory_frames_of_the_way_out_have_the_cameras_of_the_targets():
    window = Window(0, 0, 1, 2, False, (MemoryFrame(1, FRAMES - 1 - 4, False),))
    batch = gather(LATENTS, [window], CHUNK, memory_frames=2)
    np.testing.assert_array_equal(batch["memory_cam_to_world"][0, -1], batch["cam_to_world"][0, 2])
    np.testing.assert_array_equal(batch["memory_depth"][0, -1], batch["depth"][0, 2])
    assert batch["memory_latents"][0, -1, 0, 0, 1] == 0  # forwards, the targets being backwards


def test_still_windows_rest_at_one_camera_and_remember_that_very_place_first():
    batch = draw(5, still_fraction=1.0, first_fraction=0.5)
    cameras = batch["cam_to_world"]
    np.testing.assert_array_equal(cameras, np.broadcast_to(cameras[:, :1], cameras.shape))
    assert (batch["target"][:, 1:, 0, 0, 2] >= 200).all()
    assert (batch["target"][:2, 0, 0, 0, 2] < 200).all()  # first chunks start from a picture
    used = batch["memory_keep"].all(axis=(2, 3))
    oldest = used.argmax(axis=1)
    rows = np.arange(len(oldest))
    np.testing.assert_array_equal(
        batch["memory_latents"][rows, oldest, 0, 0], batch["target"][:, 1, 0, 0]
    )
    np.testing.assert_array_equal(batch["memory_cam_to_world"][rows, oldest], cameras[:, 0])


def test_start_pictures_enter_memory_as_a_camera_at_rest_sees_them():
    window = Window(0, 0, 0, 2, False, (MemoryFrame(0, 1, True), MemoryFrame(0, 2, False)))
    values = gather(LATENTS, [window], CHUNK, memory_frames=2)["memory_latents"][0, :, 0, 0, 2]
    np.testing.assert_array_equal(values, [201, 2])


def test_without_memory_nothing_is_kept():
    assert not draw(3, memory_off=1.0)["memory_keep"].any()


def test_clips_shorter_than_a_chunk_are_refused():
    short = Latents(*(a[:, :, :, :5] if a.ndim == 7 else a for a in LATENTS))
    with pytest.raises(ValueError, match="got 5 latent frames, expected at least 6"):
        draw_window(np.random.default_rng(0), short, 0, False, CONFIG, CHUNK)


def random_camera(rng) -> Camera:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = rotation, rng.normal(size=3)
    return Camera(pose, np.array([[5, 0, 2.5], [0, 4, 1.5], [0, 0, 1]], np.float32))


def test_a_mirrored_camera_sees_mirrored_depth_at_mirrored_points():
    rng = np.random.default_rng(0)
    camera = random_camera(rng)
    depth = rng.uniform(1, 5, HW).astype(np.float32)
    pair = latents_lib.mirrored_pair(camera, HW[1])
    points = unproject(depth, camera)
    mirrored = unproject(depth[:, ::-1], index_camera(pair, 1))
    expected = points[:, ::-1] * np.array([-1, 1, 1])
    np.testing.assert_allclose(mirrored, expected, rtol=1e-5, atol=1e-5)
    assert np.linalg.det(pair.cam_to_world[1, :3, :3]) == pytest.approx(1.0, abs=1e-5)


def test_a_window_carries_the_embedding_of_its_clip_s_caption_unless_dropped(tmp_path):
    rows = {text: np.full((n, 5), n, np.float32) for text, n in (("", 1), ("a", 2), ("b", 3))}
    add_texts(tmp_path, TextSpec("encoder", 4, 5, "float32"), rows)
    texts = ClipTexts(open_texts(tmp_path), ("a", "b"))

    def drawn(step, share):
        config = dataclasses.replace(CONFIG, text_dropout=share)
        return draw_batch(
            LATENTS,
            config,
            CHUNK,
            texts,
            seed=1,
            step=step,
            clips=clip_indices(1, step, 4, len(LATENTS.video)),
        )

    for step in range(3):
        plain = drawn(step, 0.0)
        clips = clip_indices(1, step, 4, 2)
        np.testing.assert_array_equal(plain["text"][:, 0, 0], clips + 2)
        np.testing.assert_array_equal((plain["text"] != 0).any(-1).sum(1), clips + 2)
        assert (drawn(step, 1.0)["text"][:, 0, 0] == 1).all()
        np.testing.assert_array_equal(drawn(step, 0.5)["text"], drawn(step, 0.5)["text"])
        for name, array in draw(step).items():  # text changes nothing else
            np.testing.assert_array_equal(plain[name], array)
    dropped = np.stack([drawn(step, 0.5)["text"][:, 0, 0] == 1 for step in range(20)])
    assert 20 < dropped.sum() < 60
    assert "text" not in draw(0)


REFERENCES = dataclasses.replace(CHUNK, references=ReferenceConfig(3, 2.0, 0.01))


def test_references_are_past_frames_best_first_as_a_rollout_would_choose_them():
    way_out = (MemoryFrame(1, 3, False), MemoryFrame(0, 5, False))
    window = Window(0, 1, 0, 5, first=False, memory=way_out)
    chosen = choose(LATENTS, window, REFERENCES)
    # Frame 5 is target frame 0 itself, and no other is seen as fully.
    assert chosen[0] == (0, 5)
    assert len(chosen) == 3
    history = {(0, i) for i in range(6)} | {(1, 3)}
    assert set(chosen) <= history
    # A strict threshold leaves what overlaps that much, in the same order.
    strict = dataclasses.replace(REFERENCES, references=ReferenceConfig(3, 2.0, 0.99))
    assert choose(LATENTS, window, strict) == chosen[:1]


def test_a_batch_has_equally_many_references_for_every_row_and_none_for_first_chunks():
    config = dataclasses.replace(CONFIG, references=True)
    seen = set()
    for step in range(12):
        drawn = draw_batch(
            LATENTS,
            config,
            REFERENCES,
            seed=1,
            step=step,
            clips=clip_indices(1, step, 4, len(LATENTS.video)),
        )
        same = draw_batch(
            LATENTS,
            CONFIG,
            REFERENCES,
            seed=1,
            step=step,
            clips=clip_indices(1, step, 4, len(LATENTS.video)),
        )
        for name, array in same.items():
            np.testing.assert_array_equal(array, drawn[name])
        references = drawn.get("references", np.zeros((4, 0)))
        seen.add(references.shape[1])
        assert not references[:1].any()  # the row of a first chunk
        if references.shape[1]:
            assert references.shape == (4, references.shape[1], *HW, CHANNELS)
            # Channel 1 is the way, channel 2 the frame: of the targets' own way, only the past.
            start = drawn["target"][1:, :1]
            same_way = references[1:, ..., 1] == start[..., 1]
            assert same_way.any()
            assert (references[1:, ..., 2] <= start[..., 2])[same_way].all()
    assert seen == {0, 1, 2, 3}
