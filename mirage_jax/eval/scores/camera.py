"""camera: whether the frames were seen from where they were asked for.

The camera of some frames is found in the pictures (`metrics/camera_from_pictures.py`) by matching
each with the true frame of the same place, whose geometry is known. Only frames count whose true
picture gives its own camera back: of a wall without texture nothing can be told. Both paths begin
at the start camera, which is given; rotations are not aligned. `translation` is in units of the
scene's typical depth, without alignment, since depth makes its scale known.

`camera_score` is WorldScore's formula with its scale alignment; frames in which no camera was found
count there as its worst (15 degrees, 0.5). `rotation` and `translation` are of the frames where one
was found, so read them beside `found`.
Read next: `motion.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import camera as camera_metrics
from mirage_jax.eval.metrics.camera_from_pictures import Known, find_camera, picture_features
from mirage_jax.eval.scores import Score
from mirage_jax.geometry.camera import index_camera
from mirage_jax.rollout.paths import typical_depth

_TRUE_DEGREES, _TRUE_UNITS = 0.1, 0.01


class Look(NamedTuple):
    """A frame whose camera can be told, and the true picture that tells it."""

    frame: int
    known: Known


def telling_looks(case: Case, count: int) -> list[Look]:
    """Return frames, spread over the path, whose true picture gives its own camera back.

    Raises:
        ValueError: the path has no recorded depth.
    """
    if case.depths is None or case.solid is None:
        raise ValueError(
            f"scene {case.item.name}: got no recorded depth, expected that of every frame; take "
            "clips of a recorded split"
        )
    last, looks = len(case.truth) - 1, []
    for frame in np.unique(np.linspace(0, last, count + 1).round().astype(int))[1:]:
        camera = index_camera(case.cameras, int(frame))
        known = Known(
            case.truth[frame],
            case.depths[frame],
            camera,
            case.solid[frame],
            picture_features(case.truth[frame]),
        )
        found = find_camera(case.truth[frame], known, camera.intrinsics).cam_to_world
        away = np.linalg.norm(found[:3, 3] - camera.cam_to_world[:3, 3])
        turned = camera_metrics.rotation_degrees(found, np.asarray(camera.cam_to_world))
        if turned < _TRUE_DEGREES and away < _TRUE_UNITS * typical_depth(case.scene):
            looks.append(Look(int(frame), known))
    return looks


def score_camera(case: Case, video: UInt8[np.ndarray, "f H W 3"], looks: list[Look]) -> Score:
    """Judge the cameras of a video.

    Args:
        case: with the path that was asked for.
        video: what a system made of it.
        looks: from `telling_looks`.
    """
    missing = Score(dict.fromkeys(("rotation", "translation", "found", "camera_score"), np.nan))
    if not looks:
        return missing
    start = np.asarray(case.cameras.cam_to_world[0], np.float64)
    asked, got = [start], [start]
    for look in looks:
        known = look.known
        found = find_camera(video[look.frame], known, known.camera.intrinsics).cam_to_world
        if np.isfinite(found).all():
            asked.append(np.asarray(known.camera.cam_to_world, np.float64))
            got.append(found)
    share = (len(got) - 1) / len(looks)
    if share == 0:
        return Score(missing.metrics | {"found": 0.0, "camera_score": 0.0})
    unit = typical_depth(case.scene)
    plain = camera_metrics.path_error(np.stack(asked), np.stack(got), unit=unit)
    scaled = camera_metrics.path_error(np.stack(asked), np.stack(got), "worldscore", unit)
    worst = camera_metrics.WORST_ROTATION, camera_metrics.WORST_TRANSLATION
    rotation, translation = (
        share * min(error, limit) + (1.0 - share) * limit
        for error, limit in zip((scaled.rotation, scaled.translation), worst, strict=True)
    )
    return Score(
        {
            "rotation": plain.rotation,
            "translation": plain.translation,
            "found": share,
            "camera_score": camera_metrics.worldscore(rotation, translation),
        }
    )
