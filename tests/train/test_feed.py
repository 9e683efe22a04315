"""What a step sees is a function of (seed, step), and comes in order."""

import threading

import numpy as np
import pytest

from mirage_jax.train.feed import clip_indices, prefetch


def test_every_epoch_shows_each_clip_once_in_another_order():
    drawn = np.concatenate([clip_indices(10, seed=1, step=s, batch=4) for s in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:])


def test_clip_indices_depend_on_nothing_but_seed_and_step():
    late = clip_indices(7, seed=5, step=40, batch=3)
    np.testing.assert_array_equal(late, clip_indices(7, seed=5, step=40, batch=3))
    others = [clip_indices(7, seed=seed, step=40, batch=3) for seed in range(6, 16)]
    assert any(list(o) != list(late) for o in others)


def test_no_clips_is_an_error_that_says_how_to_get_some():
    with pytest.raises(ValueError, match="mirage record"):
        clip_indices(0, seed=0, step=0, batch=1)


def test_prefetch_yields_every_step_in_order_from_any_start():
    assert list(prefetch(lambda step: step * step, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert list(prefetch(lambda step: step, 4, 4)) == []


def test_prefetch_raises_at_the_step_that_failed():
    def batch_at(step):
        if step == 2:
            raise OSError("damaged record")
        return step

    batches = prefetch(batch_at, 0, 9)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="damaged record"):
        next(batches)


def test_prefetch_ends_its_thread_when_closed_early():
    batches = prefetch(lambda step: step, 0, 1000)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]
