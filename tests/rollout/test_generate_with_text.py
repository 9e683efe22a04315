"""`mirage generate` with prompts: from a cache or the world's encoder, a prompt for each chunk."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_text
from click.testing import CliRunner
from safetensors.numpy import load_file
from tiny_world import flat_scene, tiny_spec, world_of

from mirage_jax.cli.main import cli
from mirage_jax.rollout.world import save_world


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world that reads text, its text encoder, a scene and a cache of two prompts."""
    folder = tmp_path_factory.mktemp("text")
    spec = tiny_spec()
    denoiser = dataclasses.replace(spec.denoiser, text_width=tiny_text.CONFIG.width)
    save_world(folder / "world", world_of(dataclasses.replace(spec, denoiser=denoiser)))
    tiny_text.save_text_model(folder / "encoder")
    scene = flat_scene()
    np.savez(
        folder / "geometry.npz", frames=scene.image[None], depths=scene.depth[None],
        intrinsics=scene.camera.intrinsics, poses_c2w=np.eye(4, dtype=np.float32)[None],
    )  # fmt: skip
    made = invoke(
        "encode", "text", "--weights", folder / "encoder", "--out", folder / "texts",
        "--prompt", "a red door", "--prompt", "the dark cave", "--store", "float32",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return folder


def generate(folder, out, *arguments, frames=17):
    result = invoke(
        "generate", "--weights", folder / "world", "--scene", folder / "geometry.npz",
        "--path", f"w*{frames - 1}", "--frames", frames, "--no-memory", "--out", out, *arguments,
    )  # fmt: skip
    return result, (load_file(out / "state.safetensors")["latents"] if out.is_dir() else None)


@pytest.fixture(scope="module")
def steady(folder, tmp_path_factory):
    """Latents of a walk of two chunks that follow one prompt."""
    out = tmp_path_factory.mktemp("steady") / "out"
    return generate(folder, out, "--prompt", "a red door", "--texts", folder / "texts")[1]


def test_each_chunk_follows_its_prompt_from_cache_or_encoder_alike(folder, steady, tmp_path):
    cached = ("--texts", folder / "texts")
    both = ("--prompt", "a red door", "--prompt", "the dark cave")
    result, changing = generate(folder, tmp_path / "changing", *both, *cached)
    assert result.exit_code == 0, result.output
    _, empty = generate(folder, tmp_path / "empty", *cached)
    assert changing.shape[1] == 5  # a start picture and two chunks of two new latent frames
    np.testing.assert_array_equal(changing[:, :3], steady[:, :3])
    assert np.abs(changing[:, 3:] - steady[:, 3:]).max() > 1e-4
    assert np.abs(changing[:, 1:3] - empty[:, 1:3]).max() > 1e-4
    encoder = ("--text-encoder", folder / "encoder")
    _, encoded = generate(folder, tmp_path / "encoded", *both, *encoder)
    np.testing.assert_allclose(encoded, changing, atol=1e-4)
    walk = json.loads((tmp_path / "changing" / "metrics.json").read_text())["config"]["walk"]
    assert walk["prompts"] == {"starts": [0, 1], "prompts": ["a red door", "the dark cave"]}
    resumed, _ = generate(folder, tmp_path / "changing", "--resume", "--prompt", "x", *encoder)
    assert resumed.exit_code == 2  # another prompt is another rollout


def test_guidance_leads_away_from_the_negative_prompt(folder, steady, tmp_path):
    always = ("--prompt", "a red door", "--texts", folder / "texts")
    away = ("--guidance", 3, "--negative-prompt", "the dark cave")
    result, guided = generate(folder, tmp_path / "guided", *always, *away, frames=9)
    assert result.exit_code == 0, result.output
    _, itself = generate(folder, tmp_path / "itself", *always, *away[:-1], "a red door", frames=9)
    plain = steady[:, :3]  # the first chunk does not know how long the walk is
    assert np.abs(guided - plain).max() > 1e-3
    np.testing.assert_allclose(itself, plain, atol=1e-4)  # u + g (v - u) = v where v = u


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a lake", "--texts", "{}/texts"], "'a lake'"),
        (["--prompt", "a"], "holds no text_encoder.safetensors"),
        (["--prompt", "a", "--prompt-file", "{}/p.txt"], "one of the two"),
        (["--negative-prompt", "a", "--texts", "{}/texts"], "without guidance"),
    ],
)
def test_prompts_that_cannot_be_followed_are_named_before_any_output(
    folder, tmp_path, arguments, message
):
    result, _ = generate(folder, tmp_path / "out", *(text.format(folder) for text in arguments))
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_world_that_reads_no_text_refuses_a_prompt(tmp_path):
    result = invoke("generate", "--prompt", "a cave", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "reads no text" in result.output
