"""A draw depends on seed, step and purpose, on each of them, and on nothing else."""

import itertools

import jax
import numpy as np
import pytest

from mirage_jax.prng import Purpose, generator_for, key_for

DRAWS = list(itertools.product((0, 1, 7), (0, 1, 7), (Purpose.SIGMA, Purpose.NOISE)))


def test_every_seed_step_and_purpose_gives_its_own_draw():
    keys = {np.asarray(jax.random.key_data(key_for(*draw))).tobytes() for draw in DRAWS}
    numbers = {generator_for(*draw).integers(1 << 60) for draw in DRAWS}
    assert len(keys) == len(numbers) == len(DRAWS)


def test_a_draw_is_the_same_under_jit_with_a_traced_step():
    traced = jax.jit(lambda step: jax.random.normal(key_for(3, step, Purpose.NOISE), (4,)))
    plain = jax.random.normal(key_for(3, 5, Purpose.NOISE), (4,))
    np.testing.assert_array_equal(traced(5), plain)


def test_generators_of_one_draw_repeat_each_other():
    first, second = (generator_for(3, 5, Purpose.CLIP_ORDER).permutation(100) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_purposes_keep_their_numbers():
    """Checkpoints and recordings depend on these; new purposes are appended, none renumbered."""
    assert (Purpose.INIT_CODEC, Purpose.CLIP_ORDER, Purpose.SIGMA, Purpose.NOISE) == (0, 4, 6, 7)
    assert sorted(p.value for p in Purpose) == list(range(len(Purpose)))


@pytest.mark.parametrize("draw", [key_for, generator_for])
def test_a_bare_number_is_no_purpose(draw):
    with pytest.raises(TypeError, match=r"expected a mirage_jax\.prng\.Purpose"):
        draw(0, 0, 3)


def test_a_generator_refuses_negative_counters():
    with pytest.raises(ValueError, match="expected both >= 0"):
        generator_for(-1, 0, Purpose.NOISE)
