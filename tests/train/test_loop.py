"""The loop: what it compiles, what it moves between host and device, and what it keeps."""

import jax
import numpy as np
import pytest
import toy_stage
from linear_stage import LinearObjective

from mirage_jax.train import loop
from mirage_jax.train.placement import Placement


@pytest.mark.parametrize("start", ["from step 0", "after a resume"])
def test_the_step_is_traced_once_for_all_updates(tmp_path, start):
    objective = LinearObjective(steps=8, checkpoint_steps=4, log_steps=2)
    if start == "after a resume":
        loop.train(LinearObjective(steps=8, checkpoint_steps=4), 3, loop.RunOptions(tmp_path))
        last = tmp_path / "linear" / "checkpoints" / "8"
        last.rename(tmp_path / "8")  # as if the run had been killed before
    traced, loss = [], objective.loss

    def counting(*arguments):
        traced.append(len(arguments))
        return loss(*arguments)

    objective.loss = counting
    result = loop.train(objective, 3, loop.RunOptions(tmp_path))
    assert int(result.state.step) == 8
    assert len(traced) == 1


def test_nothing_in_the_loop_is_moved_but_on_purpose(tmp_path):
    objective = LinearObjective(steps=12, checkpoint_steps=4, log_steps=2)
    batch, validate = objective.batch, objective.validate
    guarded = []

    def batch_then_guard(step, rows=None):
        if step == 5:  # the first updates have compiled what there is to compile
            jax.config.update("jax_transfer_guard", "disallow")
        guarded.append(jax.config.jax_transfer_guard == "disallow")
        return batch(step, rows)

    def validate_unguarded(*arguments):
        jax.config.update("jax_transfer_guard", "allow")
        return validate(*arguments)

    objective.batch, objective.validate = batch_then_guard, validate_unguarded
    try:
        result = loop.train(objective, 3, loop.RunOptions(tmp_path))
    finally:
        jax.config.update("jax_transfer_guard", None)
    assert int(result.state.step) == 12
    assert sum(guarded) == 7


def test_a_batch_that_was_not_placed_is_refused_by_the_guard(tmp_path, monkeypatch):
    monkeypatch.setattr(Placement, "put_batch", lambda self, arrays, rows, shared: arrays)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        loop.train(LinearObjective(steps=2), 3, loop.RunOptions(tmp_path))


def test_rows_that_one_process_makes_are_those_of_the_whole_batch():
    objective = toy_stage.objective(batch=6)
    whole = objective.batch(4)
    for rows in ([0], [1, 4], range(6)):
        part = objective.batch(4, rows)
        assert part.keys() == whole.keys()
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][list(rows)])
