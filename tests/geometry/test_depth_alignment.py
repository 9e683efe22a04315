"""Alignment of depth: exact on clean data, right under outliers, and refused where it must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry.test_depth_files import room_depth
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_jax.geometry.depth_alignment import (
    AlignmentLimits,
    align_depth,
    check_alignment,
    fit_alignment,
    inverse_depth,
)

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, database=None)
ROOM = room_depth()


def contaminated(depth, share, noise, seed, kind):
    """Return known depth with noise and a share of points that are wrong, in one of three ways."""
    random = np.random.default_rng(seed)
    known = depth * np.exp(noise * random.standard_normal(depth.shape))
    wrong = random.random(depth.shape) < share
    wild = {
        "anywhere": np.exp(random.uniform(-2, 3, depth.shape)),
        "nearer": depth * random.uniform(0.2, 0.8, depth.shape),
        "hardly nearer": depth * random.uniform(0.82, 0.92, depth.shape),
        "another scale": 1.7 * depth,
    }[kind]
    return np.where(wrong, wild, known)


KINDS = st.sampled_from(["anywhere", "nearer", "another scale"])


@SETTINGS
@given(
    scale=st.floats(0.01, 100),
    share=st.floats(0, 0.4),
    noise=st.floats(0, 0.03),
    seed=st.integers(0, 1000),
    kind=KINDS,
)
def test_a_wrong_scale_is_found_within_two_percent_despite_outliers(
    scale, share, noise, seed, kind
):
    known = contaminated(ROOM, share, noise, seed, kind)
    found = fit_alignment(inverse_depth(ROOM / scale), known, known > 0, "scale")
    check_alignment(found, "scale")
    assert abs(found.scale / scale - 1) < 0.02
    assert found.inliers >= 1 - share - 0.08
    assert found.residual <= 0.8 * noise + 1e-3


@SETTINGS
@given(
    slope=st.floats(0.1, 50),
    offset=st.floats(-0.5, 0.5),
    share=st.floats(0, 0.4),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 1000),
    kind=KINDS,
)
def test_scale_and_shift_of_disparity_are_found_despite_outliers(
    slope, offset, share, noise, seed, kind
):
    known = contaminated(ROOM, share, noise, seed, kind)
    disparity = (1 / ROOM - offset) / slope
    found = fit_alignment(disparity, known, known > 0, "disparity")
    check_alignment(found, "disparity")
    aligned = align_depth(disparity, found)
    assert np.median(np.abs(aligned / ROOM - 1)) < 0.02
    assert np.abs(aligned / ROOM - 1).max() < 0.1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("kind", "noise"),
    [("anywhere", 0.03), ("nearer", 0.03), ("hardly nearer", 0.02), ("another scale", 0.03)],
)
def test_with_many_points_the_scale_is_far_more_exact_than_one_of_them(kind, noise, seed):
    """The mean of 1,800 good points is known to 0.07 %; outliers near the noise add a little."""
    known = contaminated(ROOM, 0.4, noise, seed, kind)
    found = fit_alignment(inverse_depth(ROOM / 3), known, known > 0)
    assert abs(found.scale / 3 - 1) < 0.003


def test_three_times_too_small_is_found_exactly_without_noise():
    found = fit_alignment(inverse_depth(ROOM / 3), ROOM, ROOM > 0)
    assert found.scale == pytest.approx(3, rel=1e-6)
    np.testing.assert_allclose(align_depth(inverse_depth(ROOM / 3), found), ROOM, rtol=1e-6)


def test_unknown_pixels_stay_unknown_and_are_not_compared():
    depth = ROOM / 3
    depth[:10] = 0
    known = np.where(np.arange(ROOM.shape[1]) % 4 == 0, ROOM, 0)
    found = fit_alignment(inverse_depth(depth), known, known > 0)
    assert found.points == (known[10:] > 0).sum()
    aligned = align_depth(inverse_depth(depth), found)
    assert (aligned[:10] == 0).all()
    np.testing.assert_allclose(aligned[10:], ROOM[10:], rtol=1e-6)


@pytest.mark.parametrize("model", ["scale", "disparity"])
@pytest.mark.parametrize("seed", range(5))
def test_depth_of_another_scene_is_refused(model, seed):
    random = np.random.default_rng(seed)
    other = random.permutation(ROOM.reshape(-1)).reshape(ROOM.shape)
    found = fit_alignment(inverse_depth(other), ROOM, ROOM > 0, model)
    with pytest.raises(ValueError, match=r"photo: .*points agree within 10%.*Check that both"):
        check_alignment(found, model, "photo")


@pytest.mark.parametrize("model", ["scale", "disparity"])
def test_inverted_depth_is_refused(model):
    found = fit_alignment(ROOM, ROOM, ROOM > 0, model)  # depth given as if it were disparity
    with pytest.raises(ValueError, match="points agree"):
        check_alignment(found, model)


def test_a_shift_cannot_be_told_on_one_wall():
    wall = np.full((20, 20), 2.0)
    found = fit_alignment(inverse_depth(wall / 3), wall, wall > 0, "disparity")
    with pytest.raises(ValueError, match="scale alone"):
        check_alignment(found, "disparity")
    noisy = wall * np.exp(0.02 * np.random.default_rng(0).standard_normal(wall.shape))
    scale = fit_alignment(inverse_depth(wall / 3), noisy, wall > 0, "scale")
    check_alignment(scale, "scale")
    assert scale.scale == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("points", [0, 1, 29])
def test_too_few_points_are_refused_with_their_number(points):
    valid = np.arange(ROOM.size).reshape(ROOM.shape) < points
    for model in ("scale", "disparity"):
        found = fit_alignment(inverse_depth(ROOM), ROOM, valid, model)
        with pytest.raises(ValueError, match=f"got {points} points .*at least 30"):
            check_alignment(found, model)


def test_limits_are_the_callers():
    known = contaminated(ROOM, 0.3, 0.01, 0, "nearer")
    found = fit_alignment(inverse_depth(ROOM), known, known > 0)
    with pytest.raises(ValueError, match="90%"):
        check_alignment(found, "scale", limits=AlignmentLimits(least_inliers=0.9))


def test_jax_and_numpy_agree_under_jit():
    model = "disparity"  # which does all that scale alone does, and more
    known = contaminated(ROOM, 0.3, 0.01, 0, "nearer").astype(np.float32)
    x = inverse_depth((ROOM / 3).astype(np.float32))
    valid = known > 1.0
    ours = fit_alignment(x, known, valid, model)
    fit = jax.jit(fit_alignment, static_argnames=("model", "tolerance"))
    theirs = fit(jnp.asarray(x), jnp.asarray(known), jnp.asarray(valid), model)
    np.testing.assert_allclose(theirs, ours, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(align_depth(x, theirs), align_depth(x, ours), rtol=2e-4)
