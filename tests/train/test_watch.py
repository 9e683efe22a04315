"""What a run tells of itself: its metrics, where its time went, traces, and why it gave up."""

import json
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import pytest
from click.testing import CliRunner
from linear_stage import LinearObjective

from mirage_jax.cli.main import cli
from mirage_jax.distributed import exit_codes
from mirage_jax.train import loop
from mirage_jax.train.goodput import KINDS, Goodput
from mirage_jax.train.metrics import MetricWriter
from mirage_jax.train.non_finite import NonFiniteError
from mirage_jax.train.profiler import Profiler, parse_window
from mirage_jax.train.throughput import Work, memory_in_use, throughput
from mirage_jax.train.watch import WatchOptions


def records(workdir):
    lines = (workdir / "linear" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Train with a few bad updates and a trace, to step 12; then once more, to step 24."""
    workdir, lines = tmp_path_factory.mktemp("watched"), []
    bad = {3: [0], 4: [1], 14: [0, 1]}
    for steps, profile in ((12, (5, 6)), (24, None)):
        objective = LinearObjective(bad, steps=steps, max_skipped=3)
        options = WatchOptions(profile=profile, work=Work(tokens=1000.0, operations=1e9))
        loop.train(objective, 3, loop.RunOptions(workdir, watch=options, report=lines.append))
    return workdir, lines


def test_every_record_says_how_fast_it_went_and_what_was_waited_for(watched):
    train = [r for r in records(watched[0]) if "train/loss" in r]
    assert [r["step"] for r in train] == [6, 12, 18, 24]
    for record in train:
        seconds = record["train/update_seconds"]
        assert 0 < seconds < 60
        assert record["train/tokens_per_second"] == pytest.approx(1000 / seconds, rel=1e-4)
        assert 0 <= record["train/input_wait"] < 1
        assert 0 < record["train/goodput"] < 1
        assert "train/mfu" not in record  # of a processor whose peak nobody has stated
    assert [r["train/skipped"] for r in train] == pytest.approx([2 / 6, 0, 1 / 6, 0], abs=1e-5)
    assert [r.get("train/skipped_updates") for r in train] == [2, 2, 1, 1]


def test_time_is_kept_over_runs_by_what_it_went_into(watched):
    noted = json.loads((watched[0] / "linear" / "goodput.json").read_text())
    assert (noted["runs"], noted["furthest"]) == (2, 24)
    for kind in ("start", "compile", "update", "checkpoint", "validation", "export"):
        assert noted["seconds"][kind] > 0, kind
    assert noted["seconds"]["repeated"] == 0
    total = sum(noted["seconds"].values())
    assert noted["goodput"] == pytest.approx(noted["seconds"]["update"] / total)


def test_a_window_of_updates_is_traced(watched):
    workdir, lines = watched
    traces = list((workdir / "linear" / "tensorboard").rglob("*.xplane.pb"))
    assert [path.stat().st_size > 1000 for path in traces] == [True]
    assert sum("trace written" in line for line in lines) == 1
    # Host events carry the names of annotations.
    assert b"update" in traces[0].read_bytes()


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_trace_can_be_asked_for_while_a_run_goes_on(tmp_path, how):
    lines = []
    profiler = Profiler(tmp_path, None, lines.append)
    with profiler.listening():
        for step in range(1, 7):
            if step == 2 and how == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
            if step == 2 and how == "file":
                (tmp_path / "profile").touch()
            profiler.before(step)
            profiler.after(step, jnp.ones(3) + step)
            assert bool(lines) == (step >= 4)
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert not (tmp_path / "profile").exists()


def test_a_window_that_is_none_is_refused():
    assert parse_window("10:13") == (10, 13)
    for wrong in ("10", "3:2", "0:4", "a:b", "-1:3"):
        with pytest.raises(ValueError, match=f"--profile: got '{wrong}', expected first:last"):
            parse_window(wrong)


def test_a_run_that_stays_bad_stops_and_names_the_clips(tmp_path):
    bad = {2: [0], 5: [1], 6: [0, 1], 7: [0], 8: [1]}
    objective = LinearObjective(bad, max_skipped=3)
    with pytest.raises(NonFiniteError, match="the loss of updates 6 to 8, 3 in a row") as error:
        loop.train(objective, 3, loop.RunOptions(tmp_path))
    written = json.loads((tmp_path / "linear" / "non_finite.json").read_text())
    assert (written["first_update"], written["last_update"]) == (6, 8)
    clips = {step: objective.clips(step).tolist() for step in (5, 6, 7)}
    assert written["updates"] == [
        {"update": 6, "what": "loss", "rows": [1], "clips": [clips[5][1]]},
        {"update": 7, "what": "loss", "rows": [0, 1], "clips": clips[6]},
        {"update": 8, "what": "loss", "rows": [0], "clips": [clips[7][0]]},
    ]
    named = sorted({clip for update in written["updates"] for clip in update["clips"]})
    assert ", ".join(map(str, named)) in str(error.value)
    # What was good before is still there to go on from, once the clips are mended.
    objective = LinearObjective(steps=12)
    assert int(loop.train(objective, 3, loop.RunOptions(tmp_path)).state.step) == 12


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(tmp_path):
    objective = LinearObjective(max_skipped=2)
    loss = objective.loss

    def steep(params, fixed, batch, keys):
        losses, metrics = loss(params, fixed, batch, keys)
        return losses + jnp.sqrt(0.0 * jnp.abs(losses)), metrics  # 0, with an infinite slope

    objective.loss = steep
    with pytest.raises(NonFiniteError, match="the gradient of updates 1 to 2"):
        loop.train(objective, 3, loop.RunOptions(tmp_path))
    first = json.loads((tmp_path / "linear" / "non_finite.json").read_text())["updates"][0]
    assert (first["what"], first["rows"]) == ("gradient", [0, 1])


def test_the_clock_counts_every_second_once_and_repeated_updates_as_such(tmp_path):
    time = [0.0]
    clock = Goodput(tmp_path / "goodput.json", lambda: time[0])
    for kind, seconds in (("start", 5), ("compile", 20)):
        clock.now(kind)
        time[0] += seconds
    for step in range(1, 11):
        clock.updating(step)
        time[0] += 2
        with clock.during("input"):
            time[0] += 1
        clock.reached(step)
    assert clock.take() == dict.fromkeys(KINDS, 0) | {
        "start": 5, "compile": 20, "update": 20, "input": 10
    }  # fmt: skip
    with clock.during("checkpoint"):
        time[0] += 3
    assert clock.take() == dict.fromkeys(KINDS, 0) | {"checkpoint": 3}
    clock.note()
    time[0] += 100  # lost with the machine: after the last note
    again = Goodput(tmp_path / "goodput.json", lambda: time[0])
    for step in range(9, 13):  # update 8 was the last that had been saved
        again.updating(step)
        time[0] += 2
        again.reached(step)
    assert again.seconds["repeated"] == 4
    assert again.share == pytest.approx((20 + 4) / (58 + 8))
    assert (again.furthest, again.runs) == (12, 2)


class Device:
    """A device as JAX describes it."""

    def __init__(self, device_kind, stats=None):
        self.device_kind, self._stats = device_kind, stats

    def memory_stats(self):
        return self._stats


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
    ],
)
def test_utilisation_is_of_the_peak_of_all_devices(kind, peak):
    found = throughput(Work(5e5, 4e15), 2.0, [Device(kind)] * 4)
    assert found["mfu"] == pytest.approx(2e15 / (4 * peak))
    assert found["tokens_per_second"] == 2.5e5
    for other in ("cpu", "NVIDIA H100 PCIe", "TPU v3"):
        assert "mfu" not in throughput(Work(5e5, 4e15), 2.0, [Device(kind), Device(other)])


def test_memory_is_that_of_the_fullest_device_where_devices_tell():
    devices = [Device("x", {"bytes_in_use": n, "peak_bytes_in_use": 2 * n}) for n in (10**9, 3e9)]
    assert memory_in_use(devices) == {"memory_gb": 3.0, "memory_peak_gb": 6.0}
    assert memory_in_use([Device("cpu")]) == {}


_LOG = """
import sys
from pathlib import Path
from mirage_jax.train.metrics import MetricWriter
writer = MetricWriter(Path(sys.argv[1]), int(sys.argv[2]), lambda line: None, "mirage")
writer.write(int(sys.argv[2]) + 5, {"loss": 0.125}, "train")
writer.close()
"""


def test_weights_and_biases_gets_the_records_without_a_network(tmp_path):
    pytest.importorskip("wandb")
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    for start in ("0", "5"):  # a process each, since files are complete when it ends
        command = [sys.executable, "-c", _LOG, str(tmp_path), start]
        subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    kept = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    name = (tmp_path / "wandb_id").read_text()
    assert len(kept) == 2
    for path in kept:
        assert name in path.name  # one run, gone on with
        assert b"train/loss" in path.read_bytes()


def test_weights_and_biases_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r'--wandb: .* pip install "mirage-jax\[wandb\]"'):
        MetricWriter(tmp_path, 0, lambda line: None, "mirage")


_DIVERGING = """
import toy_stage

def get_config():
    values = {**toy_stage.VALUES, "data": {"source": "procedural", "height": 16, "width": 16}}
    values["data"] |= {"num_clips": 2, "clip_frames": 17}
    fast = {"learning_rate": 1e30, "warmup_steps": 1, "max_skipped": 2, "pca_clips": 4}
    return values | {"codec_train": {**toy_stage.VALUES["codec_train"], **fast}}
"""


def test_the_command_ends_with_a_code_of_its_own_when_a_run_is_given_up(tmp_path):
    config = tmp_path / "diverging.py"
    config.write_text(_DIVERGING)
    arguments = ["train", "--config", str(config), "--stage", "codec", "--profile", "1:1"]
    done = CliRunner().invoke(cli, [*arguments, "--workdir", str(tmp_path)])
    assert done.exit_code == exit_codes.NOT_FINITE, done.output
    assert "updates 2 to 3, 2 in a row" in done.output
    assert "trace written" in done.output
    assert (tmp_path / "codec" / "non_finite.json").exists()
