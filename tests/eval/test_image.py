"""Image metrics against what can be worked out by hand."""

import numpy as np
import pytest
from scipy import ndimage

from mirage_jax.eval.image import displacement, masked_psnr, psnr, ssim


def _texture(seed=0, hw=(96, 128)):
    noise = np.random.default_rng(seed).normal(size=(*hw, 3))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    return np.clip(127 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_psnr_of_a_constant_difference_is_its_logarithm():
    a = np.full((2, 8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[1] += 10
    np.testing.assert_allclose(psnr(a, b), [100.0, -20 * np.log10(10 / 255)], rtol=1e-5)


def test_masked_psnr_looks_at_the_mask_only():
    a = np.zeros((4, 4, 3), np.uint8)
    b = a.copy()
    b[0] = 255
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    assert masked_psnr(a, b, mask) == pytest.approx(0.0, abs=1e-5)
    assert masked_psnr(a, b, ~mask) == pytest.approx(100.0)
    assert np.isnan(masked_psnr(a, b, np.zeros((4, 4), bool)))


def test_ssim_is_one_for_equal_and_near_zero_for_unrelated_frames():
    a, b = _texture(0), _texture(1)
    assert ssim(a, a) == pytest.approx(1.0)
    assert abs(ssim(a, b)) < 0.2


def test_ssim_is_the_named_formula_in_the_middle_of_a_frame():
    a, b = _texture(0, (32, 32)), _texture(1, (32, 32))
    x, y = a[..., 0].astype(float), b[..., 0].astype(float)

    def blur(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    gray_a, gray_b = (np.repeat(z[..., :1], 3, axis=-1) for z in (a, b))
    assert ssim(gray_a, gray_b) == pytest.approx(values[5:-5, 5:-5].mean(), abs=1e-6)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_displacement_is_the_shift_of_a_texture(shift):
    wide = _texture(0, (96, 140))
    measured = displacement(wide[:, :128], wide[:, shift : shift + 128])
    assert measured.median == pytest.approx(shift, abs=0.15)
    assert measured.mean == pytest.approx(shift, abs=0.4)


def test_frames_of_other_types_or_shapes_are_refused():
    with pytest.raises(ValueError, match="expected two uint8 arrays of one shape"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
