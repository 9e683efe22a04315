"""Batches come in the order of the steps, from any start, and failures with them."""

import threading

import pytest

from mirage_jax.train.feed import Feed


def test_feed_yields_every_step_in_order_from_any_start():
    assert list(Feed(lambda step: step * step, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert list(Feed(lambda step: step, 4, 4)) == []


def test_feed_raises_at_the_step_that_failed():
    def batch_at(step):
        if step == 2:
            raise OSError("damaged record")
        return step

    batches = Feed(batch_at, 0, 9)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="damaged record"):
        next(batches)


def test_feed_ends_its_thread_when_closed_early():
    batches = Feed(lambda step: step, 0, 1000)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]
