"""LPIPS beside a slow float64 computation with scipy, and its weights as they arrive."""

import pickle  # noqa: TID251, S403  the format that the package has, written here and read by ours
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from mirage_jax.eval.metrics import lpips_files
from mirage_jax.eval.metrics.lpips import Lpips

RNG = np.random.default_rng(0)
SIZES = ((11, 3, 4), (5, 4, 5), (3, 5, 6), (3, 6, 5), (3, 5, 5))


def _alex():
    trunk = {
        f"Conv_{i}": {
            "kernel": (RNG.normal(size=(k, k, a, b)) / (k * a**0.5)).astype(np.float32),
            "bias": (0.1 * RNG.normal(size=b)).astype(np.float32),
        }
        for i, (k, a, b) in enumerate(SIZES)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": RNG.random((1, 1, b, 1)).astype(np.float32)}}
        for i, (_, _, b) in enumerate(SIZES)
    }
    return {"AlexNet_0": trunk, **heads}


def _old_pickle(tree, path):
    """Write a pickle as NumPy 1 did, whose names the package's files have."""
    data = pickle.dumps(tree, protocol=3)
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return path


def _slow(tree, a, b):
    """Compute LPIPS with scipy's correlation, channel by channel."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])

    def features(picture):
        x, out = ((picture / 127.5 - 1) - shift) / scale, []
        for i, (stride, pad) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            layer = tree["AlexNet_0"][f"Conv_{i}"]
            kernel, x = layer["kernel"].astype(float), np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
            y = np.stack(
                [
                    sum(
                        signal.correlate2d(x[..., c], kernel[..., c, o], "valid")
                        for c in range(x.shape[-1])
                    )
                    for o in range(kernel.shape[-1])
                ],
                axis=-1,
            )
            x = np.maximum(y[::stride, ::stride] + layer["bias"], 0)
            out.append(x)
            if i < 2:
                windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
                x = windows[::2, ::2].max(axis=(-1, -2))
        return out

    total = 0.0
    for i, (x, y) in enumerate(zip(features(a), features(b), strict=True)):
        head = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1)
        x, y = (z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10) for z in (x, y))
        total += (((x - y) ** 2) @ head).mean()
    return total


def test_lpips_is_the_published_formula_from_the_packages_file_and_from_the_converted_one(tmp_path):
    tree = _alex()
    source = _old_pickle(tree, tmp_path / "alexnet.ckpt")
    lpips_files.convert(source, tmp_path / "alex.safetensors")
    pictures = RNG.integers(0, 256, (3, 40, 48, 3)).astype(np.uint8)
    expected = [_slow(tree, pictures[0], other) for other in pictures]
    for path in (source, tmp_path / "alex.safetensors"):
        lpips = Lpips(path)
        assert lpips.name == "lpips_alex"
        values = lpips(np.stack([pictures[0]] * 3), pictures)
        np.testing.assert_allclose(values, expected, rtol=2e-4, atol=1e-6)
        assert abs(values[0]) < 1e-9


class _Harm:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_a_file_that_would_run_something_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = _old_pickle({"AlexNet_0": _Harm()}, tmp_path / "alexnet.ckpt")
    with pytest.raises(ValueError, match="nothing but dicts"):
        lpips_files.load_weights(bad)
    assert not (tmp_path / "touched").exists()


def test_weights_that_are_absent_or_of_another_kind_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="--lpips"):
        Lpips(tmp_path / "nothing.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ValueError, match="make the file again"):
        Lpips(tmp_path / "other.safetensors")
