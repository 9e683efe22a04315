"""Bring one path of cameras onto another: similarity transforms and what they leave over.

A similarity maps world points as scale * rotation * x + translation; cameras keep their field of
view, so scaling moves them apart but does not touch their rotations. NumPy float64.

Read next: ``path_info.py``.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import invert_rigid
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import nearest_rotations

# Positions on a line leave the turn about it open: then the cameras' own rotations decide.
_FLAT = 1e-4
_SAME_TIME = 1e-4


@dataclasses.dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, " 3"]

    def apply(self, path: CameraPath) -> CameraPath:
        """Return the path in the new world."""
        matrices = path.cam_to_world.copy()
        matrices[:, :3, :3] = self.rotation @ matrices[:, :3, :3]
        matrices[:, :3, 3] = self.scale * path.centers @ self.rotation.T + self.translation
        return dataclasses.replace(path, cam_to_world=matrices)


@dataclasses.dataclass(frozen=True)
class Alignment:
    """An aligned path and what is left between it and the reference.

    Attributes:
      path: the source in the reference's world, all of its frames.
      similarity: that moved it.
      matched: how many cameras were compared.
      matched_by: "names", "times" or "order".
      position_rms, position_max: distance between corresponding cameras, in the reference's units.
      relative_rms: position_rms over the spread of the reference's cameras.
      rotation_mean, rotation_max: angle between corresponding cameras, degrees.
    """

    path: CameraPath
    similarity: Similarity
    matched: int
    matched_by: str
    position_rms: float
    position_max: float
    relative_rms: float
    rotation_mean: float
    rotation_max: float

    def report(self) -> dict[str, Any]:
        """Return the figures by name, plain numbers all."""
        hidden = ("path", "similarity")
        fields = [field.name for field in dataclasses.fields(self) if field.name not in hidden]
        return {
            "scale": self.similarity.scale,
            "rotation": self.similarity.rotation.tolist(),
            "translation": self.similarity.translation.tolist(),
            **{name: getattr(self, name) for name in fields},
        }


def umeyama(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], with_scale: bool = True
) -> Similarity:
    """Return the similarity that brings `source` closest to `target` in the least squares sense.

    Umeyama, IEEE PAMI 13(4), 1991: with the covariance U D V^T of target against source, the
    rotation is U S V^T (S repairs a reflection) and the scale tr(D S) / var(source).
    """
    center, goal = source.mean(axis=0), target.mean(axis=0)
    spread = float(((source - center) ** 2).sum() / len(source))
    left, strength, right = np.linalg.svd((target - goal).T @ (source - center) / len(source))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * sign) @ right
    scale = float((strength * sign).sum() / spread) if with_scale and spread > 0 else 1.0
    return Similarity(scale, rotation, goal - scale * rotation @ center)


def align(path: CameraPath, reference: CameraPath, with_scale: bool = True) -> Alignment:
    """Align a path to another one by the cameras that correspond.

    Cameras correspond by name where both paths have names and share at least two, else by time
    (within 0.1 ms), else in order if there are equally many. Positions decide; where they lie on a
    line or a point, the rotation comes from the cameras' own rotations instead.

    Raises:
      ValueError: no correspondence.
    """
    first, second, how = _correspondence(path, reference)
    source, target = path.taken(first), reference.taken(second)
    notes: tuple[str, ...] = ()
    if min(_flatness(source.centers), _flatness(target.centers)) < _FLAT:
        similarity = _by_rotations(source, target, with_scale)
        notes = ("positions lie on a line: the rotation is that of the cameras' own",)
    else:
        similarity = umeyama(source.centers, target.centers, with_scale)
    moved = similarity.apply(source)
    distance = np.linalg.norm(moved.centers - target.centers, axis=-1)
    rms = float(np.sqrt((distance**2).mean()))
    spread = np.linalg.norm(target.centers - target.centers.mean(axis=0), axis=-1)
    size = float(np.sqrt((spread**2).mean()))
    angles = _angles(moved.cam_to_world, target.cam_to_world)
    return Alignment(
        path=dataclasses.replace(similarity.apply(path), notes=path.notes + notes),
        similarity=similarity,
        matched=len(first),
        matched_by=how,
        position_rms=rms,
        position_max=float(distance.max()),
        relative_rms=rms / size if size > 0 else 0.0,
        rotation_mean=float(angles.mean()),
        rotation_max=float(angles.max()),
    )


def align_first_view(path: CameraPath, goal: Float[np.ndarray, "4 4"] | None = None) -> CameraPath:
    """Move a path rigidly so that its first camera is `goal`, the identity by default."""
    goal = np.eye(4) if goal is None else goal
    matrices = goal @ invert_rigid(path.cam_to_world[0]) @ path.cam_to_world
    matrices[0] = goal  # to the last bit
    return dataclasses.replace(path, cam_to_world=matrices)


def rescaled_lengths(path: CameraPath, factor: float) -> CameraPath:
    """Multiply all positions by a factor: another unit of length."""
    if not (np.isfinite(factor) and factor > 0):
        raise ValueError(f"scale is out of range: got {factor}, expected a positive number.")
    return Similarity(factor, np.eye(3), np.zeros(3)).apply(path)


def _correspondence(path: CameraPath, reference: CameraPath) -> tuple[np.ndarray, np.ndarray, str]:
    """Return frame numbers of cameras that belong together, and how that is known."""
    if path.names and reference.names:
        place = {name: index for index, name in enumerate(reference.names)}
        pairs = [(i, place[name]) for i, name in enumerate(path.names) if name in place]
        if len(pairs) >= 2:
            return *np.array(pairs).T, "names"
    if path.times is not None and reference.times is not None:
        order = np.argsort(reference.times, kind="stable")
        known = reference.times[order]
        right = np.clip(np.searchsorted(known, path.times), 1, max(len(known) - 1, 1))
        left = right - 1
        right = np.minimum(right, len(known) - 1)
        nearer = np.abs(known[left] - path.times) <= np.abs(known[right] - path.times)
        nearest = np.where(nearer, left, right)
        hit = np.abs(known[nearest] - path.times) <= _SAME_TIME
        if hit.sum() >= 2:
            return np.flatnonzero(hit), order[nearest[hit]], "times"
    if len(path) == len(reference):
        return np.arange(len(path)), np.arange(len(path)), "order"
    raise ValueError(
        f"align: no correspondence: got {len(path)} cameras against {len(reference)}, with fewer "
        "than two names or times in common. Resample one to the other's number: mirage cameras "
        "resample --frames."
    )


def _flatness(points: np.ndarray) -> float:
    """Return the second spread of points over their first: 0 on a line."""
    spreads = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(spreads[1] / spreads[0]) if len(spreads) > 1 and spreads[0] > 0 else 0.0


def _by_rotations(source: CameraPath, target: CameraPath, with_scale: bool) -> Similarity:
    """Align by the mean rotation between cameras, then scale and translation by least squares."""
    turns = target.cam_to_world[:, :3, :3] @ np.swapaxes(source.cam_to_world[:, :3, :3], 1, 2)
    left, _, right = np.linalg.svd(turns.mean(axis=0))
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = nearest_rotations((left * flip) @ right)
    turned = source.centers @ rotation.T
    offset, goal = turned - turned.mean(axis=0), target.centers - target.centers.mean(axis=0)
    power = float((offset**2).sum())
    scale = float((offset * goal).sum() / power) if with_scale and power > 0 else 1.0
    scale = scale if scale > 0 else 1.0
    shift = target.centers.mean(axis=0) - scale * turned.mean(axis=0)
    return Similarity(scale, rotation, shift)


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angles between rotations, degrees; exact for small ones too."""
    difference = np.linalg.norm(first[:, :3, :3] - second[:, :3, :3], axis=(1, 2))
    return np.degrees(2 * np.arcsin(np.clip(difference / np.sqrt(8), 0, 1)))
