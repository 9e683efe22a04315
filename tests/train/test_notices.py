"""Notices of a cloud's metadata server: a run that gets one saves and stops, others go on."""

import contextlib
import http.server
import threading

import pytest
from linear_stage import LinearObjective

from mirage_jax.train import loop, notices
from mirage_jax.train.checkpoint import Checkpoints
from mirage_jax.train.stopping import Reason

PATH = "/computeMetadata/v1/instance/"


@pytest.fixture
def answers(monkeypatch):
    """What a metadata server on this machine answers, by question; others are not found."""
    said = {"maintenance-event": "NONE", "preempted": "FALSE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = said.get(self.path.removeprefix(PATH))
            known = answer is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write((answer if known else "none").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        yield said
        server.shutdown()


def train(workdir, answers, change, monkeypatch):
    """Train 12 updates; after the batch of the fifth the answers change and are noticed."""
    objective = LinearObjective(steps=12)
    batch, noticed = objective.batch, threading.Event()
    watching = notices.watching

    @contextlib.contextmanager
    def quickly(on_notice):
        def told():
            on_notice()
            noticed.set()

        with watching(told, every=0.01):
            yield

    def batch_then_change(step, rows=None):
        if step == 5:
            answers.update(change)
            noticed.wait(0.5 if "MIGRATE" in str(change) else 30)
        return batch(step, rows)

    monkeypatch.setattr(notices, "watching", quickly)
    objective.batch = batch_then_change
    return loop.train(objective, 3, loop.RunOptions(workdir))


@pytest.mark.parametrize(
    "change",
    [{"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}, {"preempted": "TRUE"}],
)
def test_a_run_whose_machine_will_end_saves_and_stops(tmp_path, answers, change, monkeypatch):
    state, reason = train(tmp_path, answers, change, monkeypatch)
    assert reason == Reason.PREEMPTED
    step = int(state.step)
    assert 0 < step < 12
    assert Checkpoints(tmp_path / "linear" / "checkpoints").latest_step() == step
    assert not (tmp_path / "linear.npy").exists()
    # Started again on the same machine, which has not ended yet, it goes on to the end.
    objective = LinearObjective(steps=12)
    state, reason = loop.train(objective, 3, loop.RunOptions(tmp_path))
    assert (int(state.step), reason) == (12, Reason.DONE)


def test_a_machine_that_migrates_goes_on(tmp_path, answers, monkeypatch):
    change = {"maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE"}
    state, reason = train(tmp_path, answers, change, monkeypatch)
    assert (int(state.step), reason) == (12, Reason.DONE)


def test_where_the_server_does_not_answer_or_there_is_none_nothing_is_noticed(
    answers, monkeypatch, tmp_path
):
    answers.clear()
    assert notices.endings(notices.metadata_host()) == frozenset()
    assert notices.endings("127.0.0.1:1") == frozenset()
    monkeypatch.delenv("GCE_METADATA_HOST")
    product = tmp_path / "product_name"
    monkeypatch.setattr(notices, "_PRODUCT", product)
    assert notices.metadata_host() is None
    product.write_text("Standard PC\n")
    assert notices.metadata_host() is None
    product.write_text("Google Compute Engine\n")
    assert notices.metadata_host() == "metadata.google.internal"
