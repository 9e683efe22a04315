"""All protocols in one run: shared videos, scoring in other processes, numbers as if run alone."""

import collections
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_world import tiny_world, wall_clip

from mirage_jax.cli import evaluate as evaluate_cli
from mirage_jax.eval import protocols, run_protocol
from mirage_jax.eval.judges import Judges, Nets
from mirage_jax.eval.pixel_caches import PathDepth
from mirage_jax.eval.progress import Progress, Work
from mirage_jax.eval.protocols import NAMES, Protocol, Setting, list_items
from mirage_jax.eval.run_protocol import RunOptions, run_protocols
from mirage_jax.eval.systems import SYSTEMS, run_system
from mirage_jax.eval.views import clip_scene, stack_starts
from mirage_jax.eval.whole_table import run_all
from mirage_jax.geometry.camera import index_camera, stack_cameras
from mirage_jax.rollout.video import read_video

CLIPS = [wall_clip(21, seed) | {"level": f"L{seed}"} for seed in range(3)]
FACTS = {"world": "tiny", "split": "val", "command": "mirage evaluate all"}
# Chunks end at 9, 17 and 25: motion can share the videos of nvs, camera cannot. The last batch is
# not full.
FRAMES = {"nvs": 21, "motion": 17, "camera": 13, "revisit": 13}


def _protocols(names=NAMES, **changes):
    setting = Setting(items=3, frames=9, batch=2, seeds=(0, 1), systems=("latent", "no_memory"))
    items = tuple(list_items(CLIPS))
    return [
        Protocol(n, items, dataclasses.replace(setting, **{"frames": FRAMES[n]} | changes))
        for n in names
    ]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    asked = []

    def counted(system, world, start, cameras, seed, **options):
        asked.append((system.name, seed, cameras.cam_to_world.shape[1]))
        return run_system(system, world, start, cameras, seed, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_protocol, "run_system", counted)
        results = run_protocols(tiny_world(), CLIPS, _protocols(), RunOptions(folder))
    return folder, {p.name: r for p, r in zip(_protocols(), results, strict=True)}, asked


@pytest.mark.parametrize("name", ["motion", "camera"])
def test_each_protocol_has_the_numbers_that_it_has_alone(together, tmp_path, name):
    _, results, _ = together
    (protocol,) = _protocols([name])
    alone = run_protocol.run_protocol(tiny_world(), CLIPS, protocol, RunOptions(tmp_path))
    assert alone.records.keys() == results[name].records.keys()
    assert _lines(tmp_path, name) == _lines(together[0], name)


def _lines(folder, name):
    return sorted((folder / name / "items.jsonl").read_text().splitlines())


def test_protocols_of_the_same_paths_share_their_videos_where_chunks_end_alike(together):
    _, results, asked = together
    # Two batches, two systems, two seeds.
    assert collections.Counter(frames for *_, frames in asked) == {21: 2 * 2 * 2, 13: 2 * 2 * 2 * 2}
    assert all(len(found.records) == 3 * (2 * 2 + 5) for found in results.values())


def test_tables_hold_the_scenes_seeds_and_systems_that_were_asked_for(together):
    folder, results, _ = together
    asked = _protocols(["nvs"], items=2, seeds=(1,), systems=("latent",))
    (found,) = run_protocols(tiny_world(), CLIPS, asked, RunOptions(folder))
    assert len(found.records) == 2 * (1 + 5)
    assert {(r.seed, r.system) for r in found.of_system("latent")} == {(1, "latent")}
    assert all(results["nvs"].records[key] == record for key, record in found.records.items())


def test_scoring_in_other_processes_gives_the_same_numbers_and_videos(together, tmp_path):
    asked = _protocols(["camera", "motion"])
    run_protocols(tiny_world(), CLIPS, asked, RunOptions(tmp_path, workers=2))
    for name in ("camera", "motion"):
        assert _lines(tmp_path, name) == _lines(together[0], name)
        videos = sorted((tmp_path / name / "videos").iterdir())
        assert len(videos) == 3 * (2 + 5)
        for path in videos:
            theirs = read_video(together[0] / name / "videos" / path.name)
            # Encoders with other numbers of threads differ by a little.
            assert np.abs(read_video(path).astype(float) - theirs).mean() < 1


def test_what_goes_wrong_in_another_process_is_told(tmp_path):
    judges = Judges(1, Nets())
    try:
        judges.keep(0, tmp_path / "x.mp4", np.zeros((0, 8, 8, 3), np.uint8), None)
        with pytest.raises(ValueError, match="frames"):
            judges.check(wait=True)
    finally:
        judges.close()


def test_scoring_processes_end_when_the_run_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from mirage_jax.eval.judges import Judges, Nets\n"
        "if __name__ == '__main__':\n"
        "    judges = Judges(1, Nets())\n"
        "    judges.forget()\n"
        "    judges.check(wait=True)\n"
        "    print(*judges._executors[0]._processes, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    scoring = int(killed.stdout)
    for _ in range(200):
        try:
            os.kill(scoring, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(scoring, signal.SIGKILL)
    pytest.fail("the process went on alone")


def test_one_page_table_and_object_by_protocol_system_and_metric(together, monkeypatch):
    folder, results, _ = together
    asked = {protocol.name: protocol for protocol in _protocols()}
    monkeypatch.setattr(evaluate_cli, "_open", lambda *_: (tiny_world(), CLIPS))
    monkeypatch.setattr(protocols, "load_protocol", lambda name, **_: asked[name])

    def never(*arguments, **options):
        raise AssertionError("measured already")

    monkeypatch.setattr(run_protocol, "run_system", never)
    arguments = ["all", "--json", "--workers", "0", "--out", str(folder)]
    printed = CliRunner().invoke(evaluate_cli.command, arguments, catch_exceptions=False).stdout
    values = json.loads(printed.strip().splitlines()[-1])
    assert values.keys() == set(NAMES)
    for name, found in results.items():
        psnr = [r.metrics.get("psnr") for r in found.of_system("latent")]
        if name == "nvs":
            by_scene = np.reshape(psnr, (3, 2)).mean(axis=1)
            assert values[name]["latent"]["psnr"] == pytest.approx(by_scene.mean(), abs=1e-5)
        assert {"truth", "codec", "copy", "latent", "no_memory"} <= values[name].keys()
    assert json.loads((folder / "all.json").read_text())["protocols"] == values
    text = (folder / "all.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in ("nvs", "revisit", "camera", "motion")
    ]
    page = (folder / "all.html").read_text()
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) == 4
    assert all((folder / link).is_file() for link in links)
    assert 'src="' not in page


def test_with_true_depth_frames_are_written_with_the_recorded_one(tmp_path):
    (protocol,) = _protocols(["nvs"], depth="true", items=2, seeds=(0,), systems=("latent",))
    seen = []

    def kept(*arguments, **options):
        seen.append(run_system(*arguments, **options).frames)
        return run_system(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_protocol, "run_system", kept)
        run_protocol.run_protocol(tiny_world(), CLIPS, protocol, RunOptions(tmp_path))
    assert (tmp_path / "nvs_true_depth" / "items.jsonl").is_file()
    clips = [CLIPS[item.clip] for item in protocol.items[:2]]
    scenes = [clip_scene(clip, 0, "x") for clip in clips]
    paths = stack_cameras([index_camera(scene.path, slice(0, 21)) for scene in scenes])
    depth = PathDepth(
        np.stack([clip["depth"][:21] for clip in clips]).astype(np.float32),
        ~np.stack([clip["moving"][:21] for clip in clips]),
    )
    start = stack_starts(scenes)
    true, other = (
        run_system(SYSTEMS["latent"], tiny_world(), start, paths, 0, path_depth=given).frames
        for given in (depth, PathDepth(depth.depth * 3, depth.keep))
    )
    np.testing.assert_array_equal(seen[0], true)
    assert (true != other).any()
    (refused,) = _protocols(["revisit"], depth="true")
    with pytest.raises(ValueError, match="revisit: got depth='true'.*take nvs"):
        run_protocol.run_protocol(tiny_world(), CLIPS, refused, RunOptions(tmp_path))


def test_all_with_true_depth_leaves_out_what_has_none(tmp_path):
    from mirage_jax.cli import protocol_flags

    flags = dict.fromkeys(("seeds", "laps", "scenes", "systems", "items")) | {"quick": True}
    for depth, names in (
        ("true", ["nvs", "camera", "motion"]),
        ("head", list(NAMES)),
        (None, list(NAMES)),
    ):
        asked = protocol_flags.several(NAMES, **flags, depth=depth)
        assert sorted(p.name for p in asked) == sorted(names)
        assert {p.setting.depth for p in asked} == {depth or "head"}


def test_the_time_left_is_that_of_rows_like_those_done_without_compiling():
    now, said = [0.0], []
    work = [
        Work("nvs", name, seed, first, True) for first in (0, 8) for name in "ab" for seed in (0, 1)
    ]
    progress = Progress(work, said.append, clock=lambda: now[0])
    assert np.isnan(progress.seconds_left())
    for one, took in zip(work, (100.0, 20.0, 130.0, 30.0), strict=False):
        with progress.doing(one):
            now[0] += took
    # Rows of a take 20 once it is compiled, rows of b 30.
    assert progress.seconds_left() == pytest.approx(2 * 20 + 2 * 30)
    assert "4/8 rows" in said[-1]
    assert "2 min left" in said[-1]


def test_a_run_of_everything_makes_its_files_from_nothing(tmp_path):
    asked = _protocols(["motion"], items=1, batch=1, seeds=(0,), systems=("latent",), frames=5)
    values = run_all(tiny_world(), CLIPS, asked, RunOptions(tmp_path), FACTS)
    assert values["motion"]["truth"]["flow_error"] == 0
    assert values["motion"]["truth"]["motion"] == pytest.approx(1)
    assert {"all.json", "all.md", "all.html", "motion"} <= {p.name for p in tmp_path.iterdir()}
