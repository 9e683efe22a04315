"""Flow, sharpness, Fréchet distance and hole rate beside slow loops and other libraries."""

import itertools

import cv2
import numpy as np
import pytest
from scipy import fft, linalg, ndimage

from mirage_jax.eval.metrics import detail, flow, frechet

RNG = np.random.default_rng(0)


def _texture(seed=0, hw=(48, 64), sigma=1.0):
    noise = np.random.default_rng(seed).normal(size=(*hw, 3))
    smooth = ndimage.gaussian_filter(noise, (sigma, sigma, 0))
    return np.clip(127 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def _blurred(picture, sigma=1.5):
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def test_flow_of_a_shifted_texture_is_the_shift_to_the_right_and_down():
    wide = _texture(0, (60, 80))
    field = flow.dense_flow(wide[4:52, 6:70], wide[2:50, 3:67])
    assert field.shape == (48, 64, 2)
    np.testing.assert_allclose(np.median(field, axis=(0, 1)), [3.0, 2.0], atol=0.1)


def test_flow_is_that_of_a_new_solver_whatever_was_asked_before():
    pictures = [_texture(seed) for seed in range(4)]
    pictures += [np.zeros_like(pictures[0]), pictures[1][:, ::-1]]
    for a, b in itertools.product(pictures, repeat=2):
        large = [
            cv2.resize(
                cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY),
                (256, 192),
                interpolation=cv2.INTER_CUBIC,
            )
            for x in (a, b)
        ]
        new = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*large, None)
        mean = new.reshape(48, 4, 64, 4, 2).mean(axis=(1, 3)) / 4
        np.testing.assert_array_equal(flow.dense_flow(a, b), mean)


def test_round_trip_is_that_of_a_slow_loop():
    there, back = (RNG.normal(0, 4, (12, 15, 2)) for _ in range(2))
    rim, lengths = 2, []
    for y in range(rim, 12 - rim):
        for x in range(rim, 15 - rim):
            x1, y1 = x + there[y, x, 0], y + there[y, x, 1]
            column = min(max(int(np.rint(x1)), 0), 14)
            row = min(max(int(np.rint(y1)), 0), 11)
            x2, y2 = x1 + back[row, column, 0], y1 + back[row, column, 1]
            lengths.append(np.hypot(x2 - x, y2 - y))
    assert flow.round_trip(there, back, rim) == pytest.approx(np.mean(lengths))


def test_flow_consistency_is_zero_at_rest_small_for_motion_and_large_for_flicker():
    wide = _texture(1, (48, 90))
    still = np.stack([wide[:, :64]] * 3)
    moving = np.stack([wide[:, i : i + 64] for i in range(3)])
    flicker = np.stack([_texture(seed) for seed in range(3)])
    values = [flow.flow_consistency(video) for video in (still, moving, flicker)]
    assert values[0] == 0.0
    assert values[0] < values[1] < 0.5 < values[2]


def test_motion_magnitude_and_endpoint_error_of_known_fields():
    fields = np.zeros((2, 5, 5, 2))
    fields[0], fields[1, ..., 0] = (3, 4), 1
    assert flow.motion_magnitude(fields) == pytest.approx(3.0)
    np.testing.assert_allclose(flow.endpoint_error(fields, np.zeros_like(fields)), [5.0, 1.0])


def test_sharpness_is_that_of_another_librarys_laplacian_and_falls_with_blur():
    picture = _texture(2)
    gray = np.round(picture @ np.array([0.299, 0.587, 0.114]))
    assert detail.laplacian_variance(picture) == pytest.approx(
        ndimage.laplace(gray, mode="reflect").var(), rel=0.02
    )
    video = picture[None]
    assert detail.sharpness(video, video) == 1.0
    assert detail.sharpness(_blurred(picture)[None], video) < 0.3
    assert detail.sharpness(np.roll(video, 3, axis=2), video) == pytest.approx(1.0, rel=0.1)
    assert np.isnan(detail.sharpness(video, np.zeros_like(video)))


def test_hole_rate_is_the_share_of_empty_cells():
    seen = np.ones((2, 4, 5), bool)
    seen[0, :2] = False
    assert detail.hole_rate(seen) == pytest.approx(0.25)


def test_patch_features_are_scipys_cosine_transform():
    frame = _texture(3, (16, 16))
    features = frechet.patch_features(frame[None])
    assert features.shape == (9, frechet.FEATURES)
    import cv2

    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[4:12, 8:16, 0].astype(float)
    expected = fft.dctn(gray, norm="ortho")
    # Patch (1, 2) of the 3x3 grid; the lowest coefficients in reading order.
    u, v = np.mgrid[:8, :8]
    np.testing.assert_allclose(features[1 * 3 + 2, :15], expected[u + v <= 4] / 8, atol=1e-9)


def test_frechet_distance_is_the_formula_with_scipys_matrix_root():
    draws = [RNG.normal(size=(200, 4)) @ RNG.normal(size=(4, 4)) + RNG.normal(size=4) for _ in "ab"]
    sums = [frechet.PatchSums(200.0, x.sum(0), x.T @ x) for x in draws]
    (ma, ca), (mb, cb) = [(x.mean(0), np.cov(x.T, bias=True)) for x in draws]
    expected = np.sum((ma - mb) ** 2) + np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)
    assert frechet.frechet_distance(*sums) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_zero_for_the_truth_adds_up_and_punishes_blur_most():
    videos = [_texture(seed)[None] for seed in range(4)]
    whole = frechet.patch_sums(np.concatenate(videos))
    added = frechet.add_sums([frechet.patch_sums(video) for video in videos])
    assert frechet.frechet_distance(whole, added) == pytest.approx(0.0, abs=1e-6)
    others = frechet.patch_sums(np.concatenate([_texture(seed)[None] for seed in range(4, 8)]))
    blurred = frechet.patch_sums(np.concatenate([_blurred(video[0])[None] for video in videos]))
    assert frechet.frechet_distance(whole, others) < 0.1 * frechet.frechet_distance(whole, blurred)
