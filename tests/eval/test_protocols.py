"""Protocols on a tiny random world: anchors say what numbers mean, stopped runs go on."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_world import tiny_world, wall_clip

from mirage_jax.cli import evaluate as evaluate_cli
from mirage_jax.eval import anchors, protocols, run_protocol
from mirage_jax.eval.protocols import Protocol, Setting, list_items, load_protocol
from mirage_jax.eval.results import ResultFile
from mirage_jax.eval.run_protocol import RunOptions
from mirage_jax.eval.summary import curves_of, json_object, summarize
from mirage_jax.eval.write_results import write_results

CLIPS = [wall_clip(17, seed) | {"level": f"L{seed}"} for seed in range(2)]
SYSTEMS = ("latent", "no_memory")


def _protocol(name="nvs", **changes):
    setting = Setting(items=2, frames=9, batch=2, seeds=(0, 1), systems=SYSTEMS)
    return Protocol(name, tuple(list_items(CLIPS)), dataclasses.replace(setting, **changes))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    results = run_protocol.run_protocol(tiny_world(), CLIPS, _protocol(), RunOptions(folder))
    return folder / "nvs", results


@pytest.mark.parametrize("name", protocols.NAMES)
@pytest.mark.parametrize("quick", [False, True])
def test_lists_hold_enough_distinct_scenes_with_levels_in_turn(name, quick):
    protocol = load_protocol(name, quick=quick)
    names = [item.name for item in protocol.items]
    assert len(set(names)) == len(names) >= protocol.setting.items
    assert [item.level[-2:] for item in protocol.items[:6]] == ["17", "18", "19"] * 2
    assert quick or len(protocol.setting.seeds) >= 3


def test_the_truth_is_perfect_and_anchors_lose_where_they_should(measured):
    _, results = measured
    means = {s: {m: v.mean for m, v in row.items()} for s, row in summarize(results).items()}
    truth, blurred, shifted = (means[n] for n in (anchors.TRUTH, anchors.BLURRED, anchors.SHIFTED))
    perfect = {"psnr": 100.0, "ssim": 1.0, "displacement": 0.0, "sharpness": 1.0, "frechet_dct": 0}
    assert truth == pytest.approx(perfect, abs=1e-6)
    assert blurred["sharpness"] < 0.1 < 0.8 < shifted["sharpness"] < 1.2
    assert blurred["frechet_dct"] > 3 * shifted["frechet_dct"]
    assert max(blurred["psnr"], shifted["psnr"]) < 30
    assert {"latent", "no_memory", "copy", "codec"} <= set(means)
    assert 0 <= means["latent"]["hole_rate"] <= 1


def test_a_second_run_measures_nothing_and_half_a_line_only_what_it_held(
    measured, tmp_path, monkeypatch
):
    folder, results = measured
    copy = tmp_path / "nvs"
    copy.mkdir()
    data = (folder / "items.jsonl").read_bytes()
    (copy / "items.jsonl").write_bytes(data[:-40])
    asked = []
    original = run_protocol.run_system

    def counted(system, *args, **kwargs):
        asked.append(system.name)
        return original(system, *args, **kwargs)

    monkeypatch.setattr(run_protocol, "run_system", counted)
    options = RunOptions(tmp_path)
    again = run_protocol.run_protocol(tiny_world(), CLIPS, _protocol(), options)
    assert asked == ["no_memory"]
    assert json_object(summarize(again)) == json_object(summarize(results))
    lines = [json.loads(line) for line in (copy / "items.jsonl").read_text().splitlines()]
    assert len({(x["item"], x["system"], x["seed"]) for x in lines}) == len(results.records)
    run_protocol.run_protocol(tiny_world(), CLIPS, _protocol(), options)
    assert len(asked) == 1
    # Results of another world or setting are left alone and not mixed in.
    assert not ResultFile(copy / "items.jsonl", "another").records
    other = _protocol(frames=5, systems=("latent",), seeds=(0,), items=1)
    fresh = run_protocol.run_protocol(tiny_world(), CLIPS, other, options)
    assert fresh.fingerprint != again.fingerprint
    assert fresh.others == len(lines)


def test_fewer_scenes_and_seeds_give_the_same_numbers(measured, tmp_path):
    _, results = measured
    less = _protocol(items=1, seeds=(1,), systems=("latent",))
    found = run_protocol.run_protocol(tiny_world(), CLIPS, less, RunOptions(tmp_path))
    for key, record in found.records.items():
        assert record == results.records[key]


def test_revisit_of_two_laps_has_a_return_for_each_and_a_perfect_truth(tmp_path):
    protocol = _protocol("revisit", laps=2, seeds=(0,), frames=13)
    results = run_protocol.run_protocol(tiny_world(), CLIPS, protocol, RunOptions(tmp_path))
    curves = curves_of(results, "psnr_by_lap")
    assert [p.mean for p in curves["truth"]] == [100.0, 100.0]
    assert len(curves["latent"]) == len(curves["no_memory"]) == 2
    values = json_object(summarize(results))
    assert values["truth"]["displacement"] == 0
    assert values["truth"]["found"] == 1
    assert max(values["truth"]["rotation"], values["truth"]["translation"]) < 0.01
    assert values["latent"]["farthest"] < 100 == values["copy"]["farthest"]


def test_another_recording_is_refused_with_the_cure(tmp_path):
    protocol = _protocol()
    other = [wall_clip(17, seed) for seed in (5, 6)]
    with pytest.raises(ValueError, match="got another recording as clip 0.*mirage evaluate items"):
        run_protocol.run_protocol(tiny_world(), other, protocol, RunOptions(tmp_path))
    with pytest.raises(ValueError, match="--systems: got 'magic'"):
        run_protocol.system_names(_protocol(systems=("magic",)), tiny_world().spec)


def _page(measured):
    folder, results = measured
    write_results(results, _protocol(), folder, {"command": "mirage evaluate nvs"})
    return folder / "report.html"


def test_the_page_holds_everything_it_shows(measured):
    page = _page(measured).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 8
    assert all(source.startswith("data:") for source in sources)
    assert "url(" not in page
    for text in (
        "latent",
        "no_memory",
        "The worst scenes first",
        "psnr_by" not in page and "chunk",
    ):
        assert text in page
    table = (measured[0] / "table.md").read_text()
    assert "| latent |" in table


def test_the_page_opens_in_a_browser_without_network(measured, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", "--dump-dom",
            _page(measured).as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.count("<svg") >= 5
    assert "</main>" in done.stdout


def test_json_ends_with_one_object_keyed_by_system_then_metric(measured, monkeypatch):
    folder, _ = measured
    protocol = _protocol()
    monkeypatch.setattr(evaluate_cli, "_open", lambda *_: (tiny_world(), CLIPS))
    monkeypatch.setattr(protocols, "load_protocol", lambda *_, **__: protocol)
    arguments = ["nvs", "--json", "--seeds", "0,1", "--out", str(folder.parent)]
    printed = CliRunner().invoke(evaluate_cli.command, arguments, catch_exceptions=False).stdout
    values = json.loads(printed.strip().splitlines()[-1])
    assert values["truth"]["psnr"] == 100.0
    low, high = values["latent"]["psnr_ci95"]
    assert low <= values["latent"]["psnr"] <= high
    assert np.isfinite(values["no_memory"]["ssim"])
