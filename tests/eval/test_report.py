"""Summaries of measurements."""

import json

import numpy as np

from mirage_jax.eval.report import (
    interval,
    jsonable,
    markdown_table,
    paired_gain,
    summarize,
    write_report,
)

TABLE = {"a": {"psnr": [20.0, 22.0, 24.0]}, "b": {"psnr": [19.0, 21.0, 23.0]}}


def test_summary_interval_holds_the_mean_and_shrinks_with_count():
    rng = np.random.default_rng(0)
    few, many = summarize(rng.normal(size=20)), summarize(rng.normal(size=2000))
    for summary in (few, many):
        assert summary["ci95_low"] <= summary["mean"] <= summary["ci95_high"]
    width = [s["ci95_high"] - s["ci95_low"] for s in (few, many)]
    assert 5 < width[0] / width[1] < 20


def test_values_that_are_not_finite_are_left_out():
    assert summarize([1.0, float("nan"), 3.0])["count"] == 2
    assert summarize([float("nan")]) == {"count": 0}
    assert interval({"count": 0}) == "not measured"


def test_paired_gain_sees_through_the_spread_of_views():
    gain = paired_gain(TABLE, "a", "b")
    assert gain["mean"] == gain["ci95_low"] == gain["ci95_high"] == 1.0


def test_table_prints_means_medians_and_gaps():
    table = TABLE | {"c": {}}
    text = markdown_table(table, [("psnr", "dB", 1), ("median:psnr", "median", 1)])
    assert "| a | 22.0 ± " in text
    assert "| 22.0 |" in text
    assert "| c |  |  |" in text


def test_report_files_are_plain_json_and_markdown(tmp_path):
    write_report(tmp_path, "x", {"v": np.float32(1), "n": float("nan"), "a": np.arange(2)}, "# x")
    assert json.loads((tmp_path / "x.json").read_text()) == {"v": 1.0, "n": None, "a": [0, 1]}
    assert (tmp_path / "x.md").read_text() == "# x\n"
    assert jsonable((np.bool_(True),)) == [True]
