"""What a path of cameras is like, and what about it looks wrong.

Nothing is repaired or refused here: a path may hold matrices that are no rotations. Lengths are
scene units, angles degrees. Read next: ``path_alignment.py``, ``interpolation.py``.
"""

import dataclasses
import math

import numpy as np

from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath
from mirage_jax.geometry.camera_files.matrices import rotation_deviation

_ROTATION_TOLERANCE = 1e-3
_FIRST_VIEW_TOLERANCE = 1e-4
# Of neighbouring frames; between keyframes it is normal.
_LARGE_TURN = 45.0
_STILL = 1e-6
_JUMP = 20.0
# A step of more than this share of the depth leaves the scene in a few frames; a whole path below
# the least cannot be seen.
_LARGE_STEP, _SMALL_PATH = 0.5, 1e-3
_MOSTLY_BACKWARD = -0.7


@dataclasses.dataclass(frozen=True)
class PathInfo:
    """A path in numbers.

    Attributes:
      frames: how many cameras.
      seconds: from first to last, or None if times are not known.
      hw: (height, width) of the images, or None.
      first_position, last_position: of the cameras.
      path_length: sum of the steps.
      mean_step: between neighbours.
      largest_turn: between neighbours.
      total_turn: between first and last.
      field_of_view: (horizontal, vertical) of the first camera, or None.
      step_over_depth: mean step against the scene's depth, or None.
      warnings: what looks wrong, each with what to do.
    """

    frames: int
    seconds: float | None
    hw: tuple[int, int] | None
    first_position: tuple[float, ...]
    last_position: tuple[float, ...]
    path_length: float
    mean_step: float
    largest_turn: float
    total_turn: float
    field_of_view: tuple[float, float] | None
    step_over_depth: float | None
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the numbers as lines to print, warnings last."""
        size = "not known" if self.hw is None else f"{self.hw[0]} x {self.hw[1]}"
        size = "1 x 1 (normalised intrinsics)" if self.hw == UNIT_HW else size
        time = "" if self.seconds is None else f" in {self.seconds:.6g} s"
        view = "not known"
        if self.field_of_view is not None:
            view = "{:.2f} x {:.2f} degrees".format(*self.field_of_view)
        lines = [
            f"frames        {self.frames}{time}",
            f"image size    {size}",
            f"field of view {view}",
            f"first         {_triple(self.first_position)}",
            f"last          {_triple(self.last_position)}",
            f"path length   {self.path_length:.6g}",
            f"mean step     {self.mean_step:.6g}",
            f"largest turn  {self.largest_turn:.4g} degrees",
            f"first to last {self.total_turn:.4g} degrees",
        ]
        if self.step_over_depth is not None:
            lines.append(f"step / depth  {self.step_over_depth:.4g}")
        return lines + [f"warning: {text}" for text in self.warnings]


def describe(path: CameraPath, depth: float | None = None) -> PathInfo:
    """Measure a path.

    Args:
      path: cameras, rigid or not.
      depth: typical z-depth of the scene in the same units, to judge the steps against.
    """
    centers = path.centers
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=-1)
    turns = _turns(path.cam_to_world[:-1], path.cam_to_world[1:])
    mean_step = float(steps.mean()) if len(steps) else 0.0
    view = _field_of_view(path)
    return PathInfo(
        frames=len(path),
        seconds=None if path.times is None else float(path.times[-1] - path.times[0]),
        hw=path.hw,
        first_position=tuple(centers[0].tolist()),
        last_position=tuple(centers[-1].tolist()),
        path_length=float(steps.sum()),
        mean_step=mean_step,
        largest_turn=float(turns.max(initial=0.0)),
        total_turn=float(_turns(path.cam_to_world[:1], path.cam_to_world[-1:])[0]),
        field_of_view=view,
        step_over_depth=None if depth is None else mean_step / depth,
        warnings=(
            *_matrix_warnings(path),
            *_motion_warnings(path, steps, turns),
            *_unit_warnings(float(steps.sum()), mean_step, depth),
            *_lens_warnings(path, view),
        ),
    )


def _triple(position: tuple[float, ...]) -> str:
    # What rounding left of a zero is shown as one.
    return "(" + ", ".join(f"{round(value, 12) + 0.0:.6g}" for value in position) + ")"


def _turns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angles between cameras, degrees; columns are normalised first."""
    axes = [part[:, :3, :3] for part in (first, second)]
    one, two = (
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in axes
    )
    relative = np.swapaxes(one, 1, 2) @ two
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    twist = relative - np.swapaxes(relative, 1, 2)
    sine = np.linalg.norm(twist[:, [2, 0, 1], [1, 2, 0]], axis=-1) / 2
    return np.degrees(np.arctan2(sine, cosine))


def _field_of_view(path: CameraPath) -> tuple[float, float] | None:
    """Return the first camera's (horizontal, vertical) angles; the middle stands in for a size."""
    if path.intrinsics is None:
        return None
    matrix = path.intrinsics[0]
    sizes = (2 * matrix[0, 2], 2 * matrix[1, 2]) if path.hw is None else path.hw[::-1]
    left_and_right = [
        math.atan2(matrix[axis, 2], matrix[axis, axis])
        + math.atan2(sizes[axis] - matrix[axis, 2], matrix[axis, axis])
        for axis in (0, 1)
    ]
    return math.degrees(left_and_right[0]), math.degrees(left_and_right[1])


def _matrix_warnings(path: CameraPath) -> list[str]:
    """Look for what is no rotation, and for a start elsewhere than at the identity."""
    warnings = []
    rotation = path.cam_to_world[:, :3, :3]
    deviation, mirrored = rotation_deviation(path.cam_to_world), np.linalg.det(rotation) < 0
    bad = deviation > _ROTATION_TOLERANCE
    if bad.any():
        lengths = np.linalg.norm(rotation[np.argmax(bad)], axis=0)
        warnings.append(
            f"{int(bad.sum())} matrices are not rotations, the first at frame {np.argmax(bad)}: "
            f"columns of length {', '.join(f'{x:.4g}' for x in lengths)}, R^T R deviates by "
            f"{deviation.max():.3g}. A common length is a scale in the matrix; remove it."
        )
    if mirrored.any():
        warnings.append(
            f"{int(mirrored.sum())} matrices are mirrored, the first at frame "
            f"{np.argmax(mirrored)}: one axis is flipped. Between conventions two axes flip, "
            "as --as opengl does."
        )
    if np.abs(path.cam_to_world[0] - np.eye(4)).max() > _FIRST_VIEW_TOLERANCE:
        warnings.append(
            "the first view is not the identity; systems that expect it start elsewhere. "
            "mirage cameras align --first-view moves it there."
        )
    return warnings


def _motion_warnings(path: CameraPath, steps: np.ndarray, turns: np.ndarray) -> list[str]:
    """Look for jumps, and for motion against the viewing direction."""
    warnings = []
    # Standing still leaves steps of rounding; they say nothing of how the path moves.
    moves = steps[steps > _STILL * steps.max(initial=0.0)]
    typical = float(np.median(moves)) if len(moves) else 0.0
    if typical > 0 and steps.max() > _JUMP * typical:
        warnings.append(
            f"the path jumps by {steps.max():.4g} after frame {np.argmax(steps)}, "
            f"{steps.max() / typical:.0f} times the median step."
        )
    if len(turns) and turns.max() > _LARGE_TURN:
        warnings.append(
            f"a turn of {turns.max():.4g} degrees after frame {np.argmax(turns)}: keyframes? "
            "mirage cameras resample fills in between."
        )
    if len(steps) and steps.sum() > 0:
        way = np.diff(path.centers, axis=0)
        ahead = float((way * path.cam_to_world[:-1, :3, 2]).sum() / steps.sum())
        if ahead < _MOSTLY_BACKWARD:
            warnings.append(
                f"the camera moves mostly backward ({ahead:.2f} of the way is ahead): right for a "
                "pull-out, else the axes are OpenGL's (--as opengl) or the matrices inverted."
            )
    if path.times is not None and (np.diff(path.times) <= 0).any():
        warnings.append("times do not increase from frame to frame.")
    return warnings


def _unit_warnings(length: float, step: float, depth: float | None) -> list[str]:
    if depth is None or length == 0:
        return []
    if step > _LARGE_STEP * depth:
        return [
            f"a mean step is {step / depth:.3g} times the depth: cameras and depth are in "
            "different units, or these are keyframes. mirage cameras align --scale rescales."
        ]
    if length < _SMALL_PATH * depth:
        return [
            f"the whole path is {length / depth:.3g} of the depth: it will hardly be seen to move. "
            "Cameras and depth may be in different units; mirage cameras align --scale rescales."
        ]
    return []


def _lens_warnings(path: CameraPath, view: tuple[float, float] | None) -> list[str]:
    """Look for lenses that are probably in other units or of another image size."""
    if path.intrinsics is None or view is None:
        return ["no intrinsics in the file. --intrinsics fx,fy,cx,cy or --fov give them."]
    warnings = []
    if not (5 < view[0] < 150 and 5 < view[1] < 150):
        warnings.append(
            f"a field of view of {view[0]:.4g} x {view[1]:.4g} degrees: the focal length is not in "
            "pixels of this image size."
        )
    if path.hw is not None:
        matrix = path.intrinsics[0]
        off = np.abs(matrix[:2, 2] / [path.hw[1], path.hw[0]] - 0.5).max()
        if off > 0.1:
            warnings.append(
                f"the principal point is {off:.0%} of the image off its middle: intrinsics of "
                "another image size, or of a crop?"
            )
    return warnings
