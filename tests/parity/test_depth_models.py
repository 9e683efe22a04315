"""Depth models of Hugging Face in their own process say what Transformers' own pipeline says.

The models are tiny and random: no weights are needed, and whether depth is good is no part of this.
Runs where this Python, or the one that MIRAGE_TORCH_PYTHON names, has torch and transformers.
"""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mirage_jax.cli.main import cli
from mirage_jax.geometry.depth_files import read_depth
from mirage_jax.rollout.hub_depth import HubDepth
from tests.parity.torch_models import made_models

HW = (48, 72)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the models, what they are expected to say, and `frames.npy`."""
    frames = np.random.default_rng(0).integers(0, 256, (2, *HW, 3), dtype=np.uint8)
    return made_models("tiny_depth_models.py", frames, tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("name", "kind"), [("metric", "z"), ("relative", "disparity"), ("dpt", "disparity")]
)
def test_models_say_what_the_pipeline_says_and_what_it_means(models, name, kind):
    frames = np.load(models / "frames.npy")
    expected = np.load(models / name / "expected.npy")
    assert expected.std() > 1e-3 * np.abs(expected).max()
    with HubDepth(str(models / name)) as model:
        assert model.kind == kind
        first = model.depth(frames).values
        again = model.depth(frames[1:]).values  # the process stays
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(again, first[1:])


def test_depth_of_a_photograph_makes_a_scene_from_the_command_line(models, tmp_path):
    frames = np.load(models / "frames.npy")
    Image.fromarray(frames[0]).save(tmp_path / "photo.png")
    run = CliRunner().invoke
    done = run(
        cli,
        ["depth", "estimate", str(tmp_path / "photo.png"), str(tmp_path / "d.npz")]
        + ["--model", str(models / "metric")],
    )
    assert done.exit_code == 0, done.output
    expected = np.load(models / "metric" / "expected.npy")[0]
    np.testing.assert_allclose(read_depth(tmp_path / "d.npz").values[0], expected, rtol=1e-4)


def test_a_model_that_is_none_is_refused_with_its_name(models, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="hf:.*the depth model did not run"):
        HubDepth(str(tmp_path))


def test_pickled_weights_are_refused(models, tmp_path):
    for file in (models / "metric").iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ValueError, match="the depth model did not run .*safetensors"):
        HubDepth(str(tmp_path))
