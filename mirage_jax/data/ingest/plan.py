"""Which clips a preparation will write, in which shard: decided before any picture is read.

Recordings are read once for their sizes and let go again, so that thousands fit. The plan is a
function of the folder and the settings; its fingerprint keeps a stopped preparation from going on
with other ones.

Read next: ``prepare.py``.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mirage_jax.data.ingest.cut import CutConfig, cuts_of, split_of
from mirage_jax.data.ingest.layouts import Found, find_recordings, read_recording
from mirage_jax.data.ingest.recording import IngestOptions, Recording


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Settings of a preparation.

    Attributes:
        cut: size, stride and scale of clips.
        kind: layout of all recordings, or None to tell by the content.
        options: answers to what the layouts leave open.
        split: "auto" divides scenes by the hash of their name; "train" or "val" takes all.
        val_share: share of scenes for validation.
        shard_clips: clips a shard file.
        check: quarantine clips whose parts disagree.
        segmentation: which model says what moves; empty for none.
    """

    cut: CutConfig
    kind: str | None = None
    options: IngestOptions = IngestOptions()
    split: str = "auto"
    val_share: float = 0.1
    shard_clips: int = 32
    check: bool = True
    segmentation: str = ""

    def __post_init__(self) -> None:
        if self.split not in ("auto", "train", "val") or not 0 <= self.val_share < 1:
            raise ValueError(
                f"split: got {self.split!r} with val_share {self.val_share}, expected auto, train "
                "or val, and a share below 1"
            )
        if self.shard_clips < 1:
            raise ValueError(f"shard_clips: got {self.shard_clips}, expected at least 1")


class Job(NamedTuple):
    """One clip to make: of which recording, from which picture on."""

    found: Found
    start: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be written.

    Attributes:
        jobs: split -> its clips in order.
        refused: one entry for each recording that gives no clip, with the reason.
        notes: what the user should know of how recordings were read.
        left_over: pictures in no clip, recording -> count.
        recordings, pictures: how many there are.
        captions: whether any recording has one.
        fingerprint: changes when anything of the above or the settings does.
    """

    jobs: dict[str, list[Job]]
    refused: list[dict[str, Any]]
    notes: list[str]
    left_over: dict[str, int]
    recordings: int
    pictures: int
    captions: bool
    fingerprint: str


def make_plan(root: Path, config: PrepareConfig, refused: Sequence[dict[str, Any]] = ()) -> Plan:
    """Find and look at all recordings of a folder; `refused` are those that did not get there.

    Raises:
        FileNotFoundError, ValueError: no recordings, an ambiguous folder, or none that can be read
            (then with the reason of the first).
    """
    found = find_recordings(root, config.kind)
    plan = Plan({}, list(refused), [], {}, len(found) + len(refused), 0, False, "")
    pictures, captions, sizes, scenes = 0, False, [], set[str]()
    for one in found:
        try:
            recording = read_recording(one, config.options)
            starts = _starts(recording, config, plan)
        except (ValueError, TypeError, FileNotFoundError) as error:
            plan.refused.append(refusal(one.name, None, "unreadable", str(error)))
            continue
        pictures += len(recording)
        scenes.add(recording.scene)
        captions |= bool(recording.caption)
        sizes.append([one.kind, one.name, len(recording), recording.hw, starts])
        plan.notes.extend(f"{one.name}: {note}" for note in recording.notes)
        split = config.split
        if split == "auto":
            split = split_of(recording.scene, config.val_share)
        plan.jobs.setdefault(split, []).extend(Job(one, start) for start in starts)
    if config.split == "auto" and config.val_share and len(scenes) == 1:
        _divide_one_scene(plan, config.val_share)
    if not any(plan.jobs.values()):
        first = plan.refused[0]["reason"] if plan.refused else "no pictures"
        raise ValueError(
            first
            if len(found) == 1
            else f"{root}: none of {len(found)} recordings can be used. The first: {first}"
        )
    told = json.dumps([sizes, dataclasses.asdict(config)], default=str)
    return dataclasses.replace(
        plan,
        pictures=pictures,
        captions=captions,
        fingerprint=hashlib.sha256(told.encode()).hexdigest()[:16],
    )


def _divide_one_scene(plan: Plan, val_share: float) -> None:
    """Where there is one scene only, its last clips are for validation."""
    (jobs,) = plan.jobs.values()
    plan.jobs.clear()
    count = min(max(1, round(val_share * len(jobs))), len(jobs) - 1)
    plan.jobs["train"] = jobs[: len(jobs) - count]
    if count:
        plan.jobs["val"] = jobs[len(jobs) - count :]
        plan.notes.append(f"one scene only: its last {count} clips are for validation")


def refusal(name: str, start: int | None, why: str, reason: str, **more: Any) -> dict[str, Any]:
    """Return an entry of quarantine.jsonl."""
    return {"recording": name, "start": start, "why": why, "reason": reason, **more}


def shards_of(jobs: Sequence[Job], shard_clips: int) -> list[list[Job]]:
    """Divide the clips of a split into shards, in order."""
    return [list(jobs[i : i + shard_clips]) for i in range(0, len(jobs), shard_clips)]


def _starts(recording: Recording, config: PrepareConfig, plan: Plan) -> tuple[int, ...]:
    """Return where clips begin; note what is left over or too short."""
    if not recording.has_depth:
        raise ValueError(
            f"{recording.source}: has no depth: got pictures and cameras, expected z-depth of "
            "every frame beside them (depth/<clip>/ or <clip>.depth.npz). Estimate it, e.g. with "
            "mirage depth, or run ViPE on the video: mirage prepare VIDEO."
        )
    cuts = cuts_of(recording, config.cut)
    if not cuts.starts:
        need = (config.cut.shape.frames - 1) * config.cut.stride + 1
        holes = f" with {len(recording.breaks)} holes" if recording.breaks else ""
        raise ValueError(
            f"{recording.source}: is too short: got {len(recording)} pictures{holes}, expected at "
            f"least {need} in a row. Give fewer --frames or a smaller --stride."
        )
    if cuts.left_over:
        plan.left_over[recording.name] = cuts.left_over
    return cuts.starts
