"""Batches come in the order of the steps, from any start, and failures with them."""

import threading
import time

import pytest

from mirage_jax.train.feed import feed


def test_feed_yields_every_step_in_order_from_any_start():
    assert list(feed(lambda step: step * step, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert list(feed(lambda step: step, 4, 4)) == []


def test_feed_raises_at_the_step_that_failed():
    def batch_at(step):
        if step == 2:
            raise OSError("damaged record")
        return step

    batches = feed(batch_at, 0, 9)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="damaged record"):
        next(batches)
    batches.close()


def test_feed_makes_a_few_batches_early_and_ends_its_thread_when_closed():
    threads, made = set(threading.enumerate()), []

    def batch_at(step):
        made.append(step)
        return step

    batches = feed(batch_at, 0, 1000, ahead=3)
    assert next(batches) == 0
    deadline = time.monotonic() + 30
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # for any that should not be
    batches.close()
    assert made == [0, 1, 2, 3]
    while set(threading.enumerate()) - threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - threads
