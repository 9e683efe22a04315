"""A run that was killed and started again ends in the same bits as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy_stage
from safetensors.numpy import load_file

from mirage_jax.train import loop
from mirage_jax.train.checkpoint import Checkpoints
from mirage_jax.train.resume import check_config
from mirage_jax.train.stopping import Reason

ROOT = Path(__file__).parents[2]


def train(workdir, **codec_train):
    objective = toy_stage.objective(**codec_train)
    return loop.train(objective, 3, loop.RunOptions(workdir)).state


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return train(workdir), workdir


def assert_same_bits(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def test_a_run_killed_with_sigkill_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    uninterrupted, tmp_path
):
    whole, whole_workdir = uninterrupted
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "toy_stage.py"), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    saved = tmp_path / "codec" / "checkpoints" / "5"
    deadline = time.monotonic() + 600
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 1.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = Checkpoints(tmp_path / "codec" / "checkpoints").latest_step()
    assert last is not None
    assert 5 <= last <= 24

    resumed = train(tmp_path)

    assert_same_bits(resumed, whole)
    # The order of entries in the header is the writer's own; the arrays are what counts.
    exported = [load_file(w / "codec.safetensors") for w in (tmp_path, whole_workdir)]
    assert exported[0].keys() == exported[1].keys()
    assert_same_bits(*exported)


def test_stopping_early_saves_once_and_goes_on_exactly(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    objective = toy_stage.objective()
    batch = objective.batch

    def batch_then_stop(step, rows=None):
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step, rows)

    objective.batch = batch_then_stop
    stopped, reason = loop.train(objective, 3, loop.RunOptions(tmp_path))
    assert reason == Reason.PREEMPTED
    assert 0 < int(stopped.step) < 24
    assert Checkpoints(tmp_path / "codec" / "checkpoints").latest_step() == int(stopped.step)
    assert_same_bits(train(tmp_path), whole)


def test_a_checkpoint_that_was_not_finished_leaves_the_one_before(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(whole)
    checkpoints.close()
    half = tmp_path / "99.orbax-checkpoint-tmp-0"
    half.mkdir()
    (half / "manifest.ocdbt").write_bytes(b"cut short")
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 24
    assert_same_bits(again.restore(whole), whole)


def test_a_workdir_of_another_model_is_refused_by_naming_what_differs(uninterrupted):
    path = uninterrupted[1] / "codec" / "config.json"
    with pytest.raises(ValueError, match="latent_channels: 6 -> 7"):
        check_config(path, {"latent_channels": 7}, {})


def test_how_a_model_is_computed_may_change_between_runs(tmp_path):
    path = tmp_path / "config.json"
    model = {"denoiser": {"width": 32, "remat": "none"}, "fixed": "ab"}
    check_config(path, model, {})
    changed = {"denoiser": {"width": 32, "remat": "full", "products": "int8"}, "fixed": "ab"}
    check_config(path, changed, {})
    with pytest.raises(ValueError, match="denoiser"):
        check_config(path, {"denoiser": {"width": 64, "remat": "full"}, "fixed": "ab"}, {})
