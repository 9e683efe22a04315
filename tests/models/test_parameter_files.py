"""Parameter files: exact round trips, checked by name before anything is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import files, functional
from mirage_jax.models.depth_head import DepthHeadConfig

CONFIG = DepthHeadConfig(latent_channels=2, width=4, blocks=1)


def test_params_round_trip_through_a_file_bit_for_bit(tmp_path):
    params = functional.init(CONFIG, 0)
    files.save_params(tmp_path / "new folder" / "head.safetensors", params)
    loaded = files.load_params(tmp_path / "new folder" / "head.safetensors", CONFIG)
    assert jax.tree.structure(params) == jax.tree.structure(loaded)
    jax.tree.map(np.testing.assert_array_equal, params, loaded)


def test_a_half_precision_file_is_half_as_large_and_loads_in_the_models_dtype(tmp_path):
    params = functional.init(CONFIG, 0)
    files.save_params(tmp_path / "full", params)
    files.save_params(tmp_path / "half", params, dtype="bfloat16")
    loaded = files.load_params(tmp_path / "half", CONFIG)
    saved = (tmp_path / "full").stat().st_size - (tmp_path / "half").stat().st_size
    assert abs(saved - 2 * functional.count_params(params)) < 200
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2**-8)


def test_metadata_travels_in_the_header(tmp_path):
    path = tmp_path / "head.safetensors"
    files.save_params(path, functional.init(CONFIG, 0), {"name": "x", "step": 7, "sizes": [1, 2]})
    assert files.load_metadata(path) == {"name": "x", "step": "7", "sizes": "[1, 2]"}


def test_loading_with_another_config_names_what_does_not_fit(tmp_path):
    path = tmp_path / "head.safetensors"
    files.save_params(path, functional.init(CONFIG, 0))
    with pytest.raises(ValueError, match=r"missing \(4\): blocks/1/inner/bias"):
        files.load_params(path, DepthHeadConfig(latent_channels=2, width=4, blocks=2))
    with pytest.raises(ValueError, match=r"misshapen .* got \(3, 3, 12, 4\)"):
        files.load_params(path, DepthHeadConfig(latent_channels=3, width=4, blocks=1))


def test_missing_and_truncated_files_are_refused_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match="train or convert"):
        files.load_params(tmp_path / "none.safetensors", CONFIG)
    path = tmp_path / "cut.safetensors"
    files.save_params(path, functional.init(CONFIG, 0))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="fetch it again"):
        files.load_params(path, CONFIG)


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "head.safetensors"
    params = functional.init(CONFIG, 0)
    files.save_params(path, params)
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.save_params(path, functional.init(CONFIG, 1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["head.safetensors"]


def test_equal_parameters_and_metadata_are_equal_bytes(tmp_path):
    params = {"a": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, "b": np.ones(3)}
    metadata = {name: name * 2 for name in "stepconfigworld"}
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    files.save_params(first, params, metadata)
    files.save_params(second, params, dict(reversed(metadata.items())))
    assert first.read_bytes() == second.read_bytes()
    assert files.load_metadata(first) == metadata
