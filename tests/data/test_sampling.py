"""Batches are a pure function of seed and step, and cover every clip once an epoch."""

import numpy as np
import pytest

from mirage_jax.data.sampling import BatchSpec, batch_at, clip_indices, epoch_order


def _source(clips: int = 7, frames: int = 11) -> list[dict]:
    return [
        {
            "rgb": np.full((frames, 2, 2, 3), clip, np.uint8),
            "cam_to_world": np.arange(frames)[:, None, None] * np.ones((frames, 4, 4)),
            "intrinsics": np.full((3, 3), clip, np.float32),
        }
        for clip in range(clips)
    ]


def _spec(batch: int, **options) -> BatchSpec:
    return BatchSpec(batch, fields=("rgb", "cam_to_world", "intrinsics"), **options)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
def test_each_clip_comes_once_per_epoch_also_when_batches_straddle_epochs(batch):
    clips, epochs = 7, 10
    steps = clips * epochs // batch
    order = np.concatenate([clip_indices(5, step, batch, clips) for step in range(steps)])
    for epoch in range(len(order) // clips):
        assert sorted(order[epoch * clips : (epoch + 1) * clips]) == list(range(clips))


def test_epochs_and_seeds_have_their_own_order():
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_a_step_gives_the_same_batch_whatever_was_read_before():
    source, spec = _source(), _spec(4, frames=5)
    later = [batch_at(source, 1, step, spec) for step in (0, 3, 9)]
    again = batch_at(source, 1, 9, spec)
    for name, value in again.items():
        np.testing.assert_array_equal(value, later[-1][name], err_msg=name)


def test_hosts_together_see_what_one_host_sees():
    source = _source()
    whole = batch_at(source, 2, 6, _spec(6, frames=4))
    parts = [batch_at(source, 2, 6, _spec(6, frames=4, host=h, hosts=3)) for h in range(3)]
    for name, value in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(joined, value, err_msg=name)


def test_a_window_is_cut_from_all_frame_arrays_alike_and_reaches_both_ends():
    source, starts = _source(), set()
    for step in range(40):
        batch = batch_at(source, 0, step, _spec(3, frames=8))
        assert batch["rgb"].shape == (3, 8, 2, 2, 3)
        assert batch["intrinsics"].shape == (3, 3, 3)
        np.testing.assert_array_equal(batch["cam_to_world"][:, 0, 0, 0], batch["start"])
        np.testing.assert_array_equal(batch["rgb"][:, 0, 0, 0, 0], batch["clip"])
        starts |= set(batch["start"].tolist())
    assert starts == {0, 1, 2, 3}


def test_bad_requests_are_explained():
    with pytest.raises(ValueError, match="window of 12, but the clips have 11"):
        batch_at(_source(), 0, 0, _spec(2, frames=12))
    with pytest.raises(ValueError, match="is the data set empty"):
        clip_indices(0, 0, 4, 0)
    with pytest.raises(ValueError, match="multiple of the hosts"):
        BatchSpec(5, hosts=2)
