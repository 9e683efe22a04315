"""`mirage encode latents`: two processes, one of them killed, and the trainings that read them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from simulated_devices import QUICK_COMPILE, environment

from mirage_jax.cli.main import cli
from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.clip import ClipShape
from mirage_jax.data.procedural import ProceduralConfig, render_clip
from mirage_jax.data.source import open_clips
from mirage_jax.data.text_cache import TextSpec, add_texts
from mirage_jax.distributed.exit_codes import PREEMPTED
from mirage_jax.models import files, functional
from mirage_jax.models.codec import CodecConfig
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import config as config_lib
from mirage_jax.train.given_latents import split_latents
from mirage_jax.train.latents import load_codec

ROOT = Path(__file__).parents[2]
SHAPE = ProceduralConfig(frames=17, height=32, width=32, supersample=1)
CLIPS = {"train": 72, "val": 3}  # two devices of each of two processes have work
CAPTIONS = [f"room {index % 2}" for index in range(CLIPS["train"])]
CODEC = {"latent_channels": 8, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
VALUES = {
    "name": "encoded",
    "data": {"height": 32, "width": 32, "directory": "data", "texts": "texts", "mirror": True},
    "codec": CODEC,
    "depth_head": None,
    "denoiser": {
        "latent_channels": 8,
        "out_channels": 8,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "mlp_width": 16,
        "branch_layers": (0,),
        "condition_channels": 20,
        "time_frequencies": 16,
        "text_width": 6,
    },
    "memory": {"capacity": 256, "channels": 8},
    "chunk": {"latent_frames": 2, "preceding": 1},
    "sampling": {"steps": 1},
    "denoiser_train": {
        "steps": 2,
        "batch": 4,
        "log_steps": 1,
        "warmup_steps": 1,
        "validation_clips": 1,
        "windows": {"memory_frames": 1, "first_fraction": 1.0},  # one kind is compiled
    },
}
# One process makes the folder for all of them.
pytestmark = pytest.mark.xdist_group("encode_latents")
MIRAGE = (sys.executable, "-m", "mirage_jax.cli.main")
ENCODE = ("encode", "latents", "--config", "config.py", "--weights", "weights", "--out")
TRAIN = ("train", "--config", "config.py", "--stage", "denoiser", "--weights")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, a data set, its text cache and a codec."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "config.py").write_text(f"def get_config():\n    return {VALUES!r}\n")
    rooms = [render_clip(seed, SHAPE) for seed in range(3)]
    rng = np.random.default_rng(0)
    for split, count in CLIPS.items():
        writer = SplitWriter(folder / "data", "rooms", split, 1, captions=True)
        changed = (
            rooms[index % 3]
            | {"rgb": np.roll(rooms[index % 3]["rgb"], index, axis=2), "caption": CAPTIONS[index]}
            for index in range(count)
        )
        writer.write_shard(0, changed)
        writer.finish(ClipShape(SHAPE.frames, SHAPE.height, SHAPE.width), "rooms")
    rows = {prompt: rng.normal(size=(2, 6)).astype(np.float32) for prompt in ["", *CAPTIONS]}
    add_texts(folder / "texts", TextSpec("encoder", 4, 6, "float32"), rows)
    codec = CodecConfig(**CODEC)
    params = functional.init(codec, key_for(0, 0, Purpose.INIT_CODEC))
    (folder / "weights").mkdir()
    files.save_params(folder / "weights" / "codec.safetensors", params, {"config": CODEC})
    return folder


def mirage(place, *arguments):
    """Run the command as a process of its own; return what it says."""
    return succeeded(place, *MIRAGE, *arguments)


def succeeded(place, *command):
    done = subprocess.run([str(part) for part in command], check=False, **how(place))
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def how(place):
    # All compile alike: other optimisation may round otherwise.
    env = environment(QUICK_COMPILE)
    return {
        "cwd": place, "env": env, "text": True, "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(place):
    """Latents of one process that nothing disturbed."""
    assert "72 of 72 clips" in mirage(place, *ENCODE, "whole")
    return place / "whole"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_processes_of_which_one_is_killed_leave_what_one_undisturbed_does(place, whole):
    out = place / "out"
    launch = [
        sys.executable,
        str(ROOT / "launch" / "local.py"),
        "2",
        "--devices-per-process",
        "2",
        "--",
    ]
    launch += [*MIRAGE, *ENCODE, "out"]
    with subprocess.Popen(launch, **how(place)) as running:
        pids = [running.stdout.readline().rsplit(maxsplit=1)[-1] for _ in range(2)]
        deadline = time.monotonic() + 300
        while not (out / "train" / "clip_00001.safetensors").exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(int(pids[1]), signal.SIGKILL)
        running.stdout.read()
    assert running.returncode
    left = {path.name for path in (out / "train").glob("clip_*")}
    assert 0 < len(left) < CLIPS["train"]
    assert not (out / "train" / "complete.json").exists()
    (out / "train" / ".clip_00003.safetensors.x").write_bytes(b"half")  # of the one killed

    assert "36 of 36 clips (share of process 1 of 2)" in succeeded(place, *launch)
    assert contents(out) == contents(whole)


def test_a_process_whose_machine_is_wanted_back_ends_with_the_code_that_says_so(place):
    command = [sys.executable, str(ROOT / "launch" / "local.py"), "2", "--", *MIRAGE, *ENCODE]
    with subprocess.Popen([*command, "stopped"], **how(place)) as running:
        pids = [running.stdout.readline().rsplit(maxsplit=1)[-1] for _ in range(2)]
        while not (place / "stopped" / "train" / "clip_00001.safetensors").exists():
            assert running.poll() is None
            time.sleep(0.001)
        for pid in pids:
            os.kill(int(pid), signal.SIGTERM)
        said = running.stdout.read()
    assert running.returncode == PREEMPTED, said[-3000:]
    assert not (place / "stopped" / "train" / "complete.json").exists()


def losses(workdir):
    lines = (workdir / "denoiser" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "error" in k or "loss" in k}
            for line in lines]  # fmt: skip


def test_training_from_them_is_training_without_them_and_encodes_nothing(place, whole):
    mirage(place, *TRAIN, "weights", "--workdir", "without")
    said = mirage(place, *TRAIN, "weights", "--workdir", "with", "--latents", whole)
    assert " encoded, " not in said
    assert not (place / "with" / "latents").exists()
    assert losses(place / "with") == losses(place / "without") != []
    name = "denoiser.safetensors"
    assert (place / "with" / name).read_bytes() == (place / "without" / name).read_bytes()


def test_a_copy_of_the_data_will_do_and_other_data_or_weights_are_refused(
    place, whole, monkeypatch
):
    monkeypatch.chdir(place)

    def refused(latents, weights="weights"):
        arguments = [*TRAIN, weights, "--workdir", "refused", "--latents", latents]
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        return str(done.exception) + done.output

    other = place / "other"
    other.mkdir()
    params = functional.init(CodecConfig(**CODEC), key_for(1, 0, Purpose.INIT_CODEC))
    files.save_params(other / "codec.safetensors", params, {"config": CODEC})
    assert "is of codec weights (digest of codec.safetensors)" in refused(whole, other)

    shutil.copytree(place / "data", place / "copied", copy_function=shutil.copyfile)
    world = config_lib.replace(config_lib.load("config.py"), {"data.latents": str(whole)})
    codec = load_codec([place / "weights"], world.codec)
    copied = open_clips(place / "copied", "train")
    assert copied.fingerprint != open_clips(place / "data", "train").fingerprint
    found, folder = split_latents(world, codec, "train", copied, place / "refused", print)
    assert (found.clips, folder) == (CLIPS["train"], whole / "train")

    lacking = shutil.copytree(whole, place / "lacking")
    (lacking / "train" / "clip_00007.safetensors").unlink()
    assert "lacks clip_00007.safetensors (1 of 72 files)" in refused(lacking)
    (lacking / "train" / "complete.json").unlink()
    said = refused(lacking)
    assert "has no complete.json, expected the latents of all 72 clips" in said
    assert "run mirage encode latents" in said
