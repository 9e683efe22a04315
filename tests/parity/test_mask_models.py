"""Segmentation models of Hugging Face in their own process say what Transformers' pipeline says.

The models are tiny and random: no weights are needed; whether masks are good is no part of this.
Runs where this Python, or the one that MIRAGE_TORCH_PYTHON names, has torch and transformers.
"""

import json

import numpy as np
import pytest
import recorded_folders as folders
from click.testing import CliRunner
from PIL import Image

from mirage_jax.cli.main import cli
from mirage_jax.data.source import open_clips
from mirage_jax.rollout.hub_masks import HubMasks
from mirage_jax.rollout.scene import load_scene
from tests.parity.torch_models import made_models

HW = (48, 72)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the models, what they are expected to say, and `frames.npy`."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)
    return made_models("tiny_mask_models.py", frames, tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", ["segformer"])
def test_models_say_what_the_pipeline_says(models, name):
    frames = np.load(models / "frames.npy")
    expected = np.load(models / name / "expected.npy")
    assert len(np.unique(expected)) > 2  # otherwise nothing is compared
    assert (expected >= 0).all()
    with HubMasks(str(models / name)) as model:
        first, again = model.segment(frames), model.segment(frames[1:])
        keep = model.keep(frames)
        assert "person, car, sky-other-merged" in model.note
    np.testing.assert_array_equal(first.moving, np.isin(expected, (1, 4)))
    np.testing.assert_array_equal(first.sky, expected == 2)
    np.testing.assert_array_equal(keep, np.isin(expected, (0, 3, 5)))
    np.testing.assert_array_equal(again.moving, first.moving[1:])
    for number, label in ((0, "wall"), (3, "Floor"), (5, "teddy bear")):
        with HubMasks(str(models / name), [label]) as model:
            np.testing.assert_array_equal(model.keep(frames), expected != number)


@pytest.fixture
def labels(models) -> str:
    """Labels that are neither nowhere nor everywhere in the first frame."""
    found = np.load(models / "segformer" / "expected.npy")[0]
    numbers, counts = np.unique(found, return_counts=True)
    assert len(numbers) > 1
    names = json.loads((models / "segformer" / "config.json").read_text())["id2label"]
    return names[str(numbers[np.argmin(counts)])]


def test_the_mask_of_a_photograph_is_in_its_scene(models, labels, tmp_path):
    frames = np.load(models / "frames.npy")
    Image.fromarray(frames[0]).save(tmp_path / "photo.png")
    np.save(tmp_path / "depth.npy", np.full(HW, 3.0, np.float32))
    model = f"hf:{models / 'segformer'}"
    done = CliRunner().invoke(
        cli,
        ["scene", "new", str(tmp_path / "photo.png"), str(tmp_path / "room"), "--fov", "60"]
        + ["--depth", str(tmp_path / "depth.npy"), "--mask", model, "--mask-labels", labels],
    )
    assert done.exit_code == 0, done.output
    with HubMasks(str(models / "segformer"), [labels]) as network:
        expected = network.keep(frames[:1])[0]
    assert f"not kept is what it labels {labels}" in done.output
    np.testing.assert_array_equal(load_scene(tmp_path / "room").keep, expected)


def test_recorded_frames_are_marked_and_sky_is_far(models, tmp_path):
    clip = folders.make_clip(frames=3)
    folders.write_geometry(tmp_path / "in", clip)
    with HubMasks(str(models / "segformer")) as network:
        moving, sky = network.segment(clip["rgb"])
    done = CliRunner().invoke(
        cli,
        ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--frames", "3"]
        + ["--height", str(folders.HEIGHT), "--width", str(folders.WIDTH), "--split", "train"]
        + ["--mask", f"hf:{models / 'segformer'}", "--no-check"],
    )
    assert done.exit_code == 0, done.output
    got = open_clips(tmp_path / "out", "train")[0]
    assert (moving | sky).any()
    np.testing.assert_array_equal(got["moving"], moving)
    np.testing.assert_array_equal(got["depth"][~sky], clip["depth"][~sky])
    assert (got["depth"][sky] > clip["depth"].max()).all()


def test_generating_masks_the_start_picture_by_a_model(models, tmp_path):
    common = ["--frames", "9", "--no-compare", "--path", "w*8"]
    written = {}
    model = str(models / "segformer")
    names = json.loads((models / "segformer" / "config.json").read_text())["id2label"].values()
    for name, more in (("free", []), ("held", ["--mask", f"hf:{model}"])):
        if more:
            more += ["--mask-labels", ",".join(n for n in names if n != "wall")]
        out = ["--out", str(tmp_path / name)]
        done = CliRunner().invoke(cli, ["generate", *common, *more, *out])
        assert done.exit_code == 0, done.output
        written[name] = json.loads((tmp_path / name / "metrics.json").read_text())["memory"]
    assert written["free"]["writes"]["start"]["mask"] == 0
    assert written["held"]["writes"]["start"]["mask"] > 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [("walls", "got 'walls', no label of it; did you mean 'wall'"), ("x", "its labels are: wall")],
)
def test_labels_that_the_model_does_not_have_are_refused(models, labels, message):
    with pytest.raises(ValueError, match=message):
        HubMasks(str(models / "segformer"), [labels])


def test_a_model_that_is_none_is_refused_with_its_name(models, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="--mask hf:.*the segmentation model did not run"):
        HubMasks(str(tmp_path))
