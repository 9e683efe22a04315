"""Write a folder of recordings as a data set: planned, checked, shard by shard, resumable.

In the folder of the data set, beside what ``../builder.py`` writes: ``prepare.json`` (settings and
summary), ``quarantine.jsonl`` (every recording and clip that was left out, and why) and
``ingest/`` (a report for each shard; one without its shard is written again).

Read next: ``plan.py``, ``cut.py``, ``checks.py``.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mirage_jax.atomic import write_text
from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.clip import CAPTION
from mirage_jax.data.ingest.checks import fault_of, measure_clip
from mirage_jax.data.ingest.cut import make_clip
from mirage_jax.data.ingest.estimate import estimate_geometry, videos_without_cameras
from mirage_jax.data.ingest.layouts import Found, read_recording
from mirage_jax.data.ingest.plan import Job, Plan, PrepareConfig, make_plan, refusal, shards_of
from mirage_jax.data.ingest.recording import Recording
from mirage_jax.data.ingest.segment import Segmenter, segmented

NAME = "prepared"
_STATE = "prepare.json"
QUARANTINE = "quarantine.jsonl"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a preparation came to.

    Attributes:
        recordings, pictures: what was found; recordings include refused ones.
        clips: clips written, by split.
        left_over: pictures at the ends of recordings that fill no clip.
        quarantined: number of entries in quarantine.jsonl, by kind of reason.
        measures: medians over the clips of what ``checks.py`` measures.
        notes: how recordings were read.
    """

    recordings: int
    pictures: int
    clips: dict[str, int]
    left_over: int
    quarantined: dict[str, int]
    measures: dict[str, float]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the summary for people."""
        clips = ", ".join(f"{count} {split}" for split, count in self.clips.items()) or "none"
        out = ", ".join(f"{count} {why}" for why, count in self.quarantined.items()) or "nothing"
        lines = [
            f"{'recordings':<14}{self.recordings}, {self.pictures} pictures",
            f"{'clips':<14}{clips}",
            f"{'left over':<14}{self.left_over} pictures that fill no clip",
            f"{'quarantined':<14}{out}",
        ]
        if self.measures:
            m = self.measures
            lines += [
                f"{'depth':<14}known in {m['known']:.1%}; neighbours disagree by "
                f"{m['disagreement']:.2%}, frames further apart by {m['wide_disagreement']:.2%}",
                f"{'pictures':<14}differ by {m['moved']:.1f} levels moved by the cameras, by "
                f"{m['copied']:.1f} unmoved",
                f"{'step':<14}{m['step']:.2%} of the median depth",
            ]
        lacking = [split for split in ("train", "val") if not self.clips.get(split)]
        lines += [
            f"note: no clips for {split}, which mirage train needs: give more scenes or another "
            "--val-share, or name several folders in data.mixture"
            for split in lacking
        ]
        shown = [f"note: {note}" for note in self.notes[:8]]
        more = len(self.notes) - len(shown)
        return lines + shown + ([f"note: and {more} more in {_STATE}"] if more > 0 else [])


def prepare(
    source: Path,
    out: Path,
    config: PrepareConfig,
    say: Say = lambda line: None,
    segment: Segmenter | None = None,
) -> Summary:
    """Write all recordings below `source` as clips into `out`.

    Of a video, or a folder of nothing but videos, cameras and depth are estimated first and kept
    in ``geometry/`` of `out`.

    A stopped preparation goes on with the shards that are missing; a finished one only reports.
    What `segment` sees moving, or as sky, is marked; ``config.segmentation`` names it.

    Raises:
        FileNotFoundError, ValueError: as for ``make_plan``; or `out` holds another data set; or
            every clip is quarantined.
    """
    root, failed = source, list[dict[str, Any]]()
    if videos := videos_without_cameras(source, config.kind):
        root = out / "geometry"
        failed = estimate_geometry(videos, source, root, say)
        if len(failed) == len(videos):
            raise ValueError(f"{source}: all videos failed. The first: {failed[0]['reason']}")
    plan = make_plan(root, config, failed)
    _claim(out, plan, source)
    for split, jobs in sorted(plan.jobs.items()):
        _write_split(out, split, jobs, plan, _Making(config, say, segment))
    return _finish(out, plan, config)


def _claim(out: Path, plan: Plan, source: Path) -> None:
    """Note in `out` what is prepared there, or refuse what is something else."""
    state = out / _STATE
    if state.is_file():
        known = json.loads(state.read_text(encoding="utf-8")).get("fingerprint")
        if known != plan.fingerprint:
            raise ValueError(
                f"--out: {out} holds a preparation of other recordings or settings (see {state}): "
                "choose another folder, or delete this one."
            )
    elif (out / "dataset_info.json").exists():
        raise ValueError(f"--out: {out} holds another data set: choose another folder.")
    else:
        content = {"fingerprint": plan.fingerprint, "source": str(source)}
        write_text(state, json.dumps(content, indent=1) + "\n")


class _Making(NamedTuple):
    """With what clips are made."""

    config: PrepareConfig
    say: Say
    segment: Segmenter | None


def _write_split(out: Path, split: str, jobs: list[Job], plan: Plan, making: _Making) -> None:
    shards = shards_of(jobs, making.config.shard_clips)
    writer = SplitWriter(out, NAME, split, len(shards), captions=plan.captions)
    for number, shard in enumerate(shards):
        report = _report_path(out, split, number)
        if writer.has_shard(number) and report.is_file():
            continue
        written = writer.write_shard(number, _good_clips(shard, plan.captions, making, report))
        making.say(f"{split}: shard {number + 1} of {len(shards)}, {written} of {len(shard)} clips")


def _good_clips(
    jobs: list[Job], captions: bool, making: _Making, report: Path
) -> Iterator[dict[str, Any]]:
    """Yield the clips of a shard that pass; write down what was measured and what was refused."""
    config = making.config
    refused: list[dict[str, Any]] = []
    measures: list[dict[str, float]] = []
    opened: tuple[Found, Recording] | None = None
    for found, start in jobs:
        try:
            if opened is None or opened[0] != found:
                recording = read_recording(found, config.options)
                if making.segment is not None:
                    recording = segmented(recording, making.segment)
                opened = found, recording
            clip = make_clip(opened[1], start, config.cut)
        except (ValueError, TypeError, FileNotFoundError) as error:
            refused.append(refusal(found.name, start, "unreadable", str(error)))
            continue
        measure = measure_clip(clip)
        fault = fault_of(measure) if config.check else None
        told = {key: _finite(value) for key, value in measure._asdict().items()}
        if fault is not None:
            refused.append(refusal(found.name, start, "disagrees", fault, measures=told))
            continue
        measures.append(told)
        if not captions:
            clip.pop(CAPTION)
        yield clip
    content = {"clips": len(measures), "refused": refused, "measures": measures}
    write_text(report, json.dumps(content) + "\n")


def _finish(out: Path, plan: Plan, config: PrepareConfig) -> Summary:
    """Write quarantine, metadata and summary."""
    refused, measures, clips = list(plan.refused), [], dict[str, int]()
    for split, jobs in sorted(plan.jobs.items()):
        for number in range(len(shards_of(jobs, config.shard_clips))):
            report = json.loads(_report_path(out, split, number).read_text(encoding="utf-8"))
            refused += report["refused"]
            measures += report["measures"]
            clips[split] = clips.get(split, 0) + report["clips"]
    write_text(out / QUARANTINE, "".join(json.dumps(entry) + "\n" for entry in refused))
    if not sum(clips.values()):
        raise ValueError(
            f"{out / QUARANTINE}: all {len(refused)} clips are quarantined. The first: "
            f"{refused[0]['reason']}"
        )
    writer = SplitWriter(out, NAME, "train", 1, captions=plan.captions)
    writer.finish(config.cut.shape, "Recordings prepared with mirage prepare.")
    why: dict[str, int] = {}
    for entry in refused:
        why[entry["why"]] = why.get(entry["why"], 0) + 1
    summary = Summary(
        plan.recordings,
        plan.pictures,
        clips,
        sum(plan.left_over.values()),
        why,
        {key: _median([one[key] for one in measures]) for key in measures[0]},
        tuple(plan.notes),
    )
    state = {"fingerprint": plan.fingerprint, "left_over": plan.left_over}
    content = json.dumps(state | {"summary": dataclasses.asdict(summary)}, indent=1)
    write_text(out / _STATE, content + "\n")
    return summary


def _report_path(out: Path, split: str, number: int) -> Path:
    return out / "ingest" / f"{split}-{number:05d}.json"


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 1e9
