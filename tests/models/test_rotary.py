"""Positions against complex numbers and float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models.rotary import FrameLayout, rotary_table, rotate_pairs, timestep_sinusoid


def test_sinusoid_matches_float64_for_whole_and_fractional_timesteps():
    timestep = np.concatenate(
        [np.arange(0, 1001.0), np.random.default_rng(0).uniform(0, 1000, 500)]
    )
    timestep = timestep.astype(np.float32)
    angles = timestep.astype(np.float64)[:, None] * 10000.0 ** (-np.arange(128) / 128)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    np.testing.assert_allclose(timestep_sinusoid(jnp.asarray(timestep), 256), expected, atol=1e-6)


@pytest.mark.parametrize(("head_width", "split"), [(24, (8, 8, 8)), (128, (44, 42, 42))])
def test_rotation_matches_complex_numbers_token_by_token(head_width, split):
    frames, (height, width) = FrameLayout(references=2, target=2, preceding=1), (2, 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, frames.total * height * width, 2, head_width)).astype(np.float32)
    expected = np.empty_like(x)
    positions = [
        (t, row + (height if t < 0 else 0), column)
        for t in (-2, -1, 0, 1, 2)
        for row in range(height)
        for column in range(width)
    ]
    for token, position in enumerate(positions):
        angles = np.concatenate(
            [
                p * 10000.0 ** (-2 * np.arange(d // 2) / d)
                for p, d in zip(position, split, strict=True)
            ]
        )
        pairs = x[0, token].reshape(2, -1, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
        expected[0, token] = np.stack([turned.real, turned.imag], -1).reshape(2, head_width)
    got = rotate_pairs(jnp.asarray(x), rotary_table(frames, (height, width), head_width))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_layouts_without_target_frames_are_refused():
    with pytest.raises(ValueError, match="target >= 1"):
        FrameLayout(references=1, target=0)
