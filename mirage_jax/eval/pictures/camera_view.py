"""Pictures of a camera path: from above and from the side, with frusta, over the scene's points.

Conventions: the world is turned so that the cameras' mean up direction is +z and the first camera
looks along +y, which is up on the page from above and to the right from the side. Lengths are scene
units. Read next: `scene_points.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.eval.pictures.memory_scene import frustum_edges
from mirage_jax.eval.pictures.memory_view import round_length
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import CameraPath

_INK, _PAPER = "#20242b", "#ffffff"
_START, _BETWEEN, _END = "#0a9d8f", "#9aa3ad", "#e0475b"
_DOTS_PER_INCH, _PANEL_INCHES = 130, 6.0
_MOST_FRUSTA = 12
# Without intrinsics a frustum has this view, in a 4:3 picture.
_DRAWN_FOCAL, _DRAWN_HW = 1.0, (3, 4)
_ABOVE_EYES = 0.05


def write_camera_view(
    file: Path,
    path: CameraPath,
    title: str,
    points: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Draw a path from above and from the side as one PNG.

    Args:
        file: PNG to write; missing folders are made.
        path: cameras, rigid.
        title: first line of the heading.
        points: positions [n, 3] and colours [n, 3] in 0..255 of the scene, or None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    turn = _page_axes(path)
    matrices = path.cam_to_world.copy()
    matrices[:, :3] = turn @ matrices[:, :3]
    turned = dataclasses.replace(path, cam_to_world=matrices)
    places, colors = np.zeros((0, 3)), np.zeros((0, 3))
    if points is not None:
        places, colors = points[0] @ turn.T, np.clip(points[1], 0, 255) / 255
    figure = Figure((2 * _PANEL_INCHES, _PANEL_INCHES + 0.8), _DOTS_PER_INCH, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    center, half = _extent(turned.centers, places)
    edges = _frusta(turned, 0.09 * half)
    below = _below_eyes(places[:, 2], turned.centers[:, 2])
    for axes, name, columns, shown in (
        (figure.add_subplot(1, 2, 1), "from above", (0, 1), below),
        (figure.add_subplot(1, 2, 2), "from the side", (1, 2), np.ones(len(places), bool)),
    ):
        # What is nearer to the eye is drawn later.
        order = np.argsort(places[shown][:, 3 - sum(columns)] * (1 if columns == (0, 1) else -1))
        _draw(axes, turned.centers[:, columns], edges, columns, center, half)
        across, along = places[shown][order][:, columns].T
        axes.scatter(across, along, s=2.0, c=colors[shown][order], lw=0, zorder=1)
        axes.set_title(name, color=_INK, fontsize=11)
    figure.text(0.02, 0.975, title, color=_INK, fontsize=13, weight="bold", va="top")
    _legend(figure, len(path))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.86, wspace=0.02)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _page_axes(path: CameraPath) -> Float[np.ndarray, "3 3"]:
    """Return rows right, forward, up of the page: mean up of the cameras, first one's heading."""
    up = -path.cam_to_world[:, :3, 1].mean(axis=0)
    if np.linalg.norm(up) < 1e-6:
        up = -path.cam_to_world[0, :3, 1]
    up = up / np.linalg.norm(up)
    for ahead in (path.cam_to_world[0, :3, 2], -path.cam_to_world[0, :3, 1], np.eye(3)[0]):
        forward = ahead - up * (ahead @ up)
        if np.linalg.norm(forward) > 1e-3:
            break
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])


def _extent(centers: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the middle and half the side of the cube that is drawn; strays do not count."""
    corners = [centers.min(axis=0), centers.max(axis=0)]
    reach = float(np.ptp(centers, axis=0).max())
    if len(places):
        # A path that is small in a large scene stays visible: the scene is cut around it.
        low, high = np.percentile(places, (2, 98), axis=0)
        reach = max(reach, 0.1 * float((high - low).max()))
        corners += [
            np.maximum(low, corners[0] - 4 * reach),
            np.minimum(high, corners[1] + 4 * reach),
        ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return (low + high) / 2, 0.58 * max(float((high - low).max()), 1e-6)


def _below_eyes(heights: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Return which points do not hide the path from above, as ceilings do."""
    if not len(heights):
        return np.zeros(0, bool)
    below = heights <= eyes.max() + _ABOVE_EYES * np.ptp(heights)
    return below if below.mean() > 0.1 else np.ones(len(heights), bool)


def _frusta(path: CameraPath, depth: float) -> list[tuple[list, str, float]]:
    """Return edges of some cameras' frusta, colour and line width; first and last on top."""
    hw, lenses = path.hw, path.intrinsics
    if lenses is None:
        height, width = hw = _DRAWN_HW
        focal = _DRAWN_FOCAL * width
        lens = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        lenses = np.tile(lens, (len(path), 1, 1))
    if hw is None:
        hw = (2 * lenses[0, 1, 2], 2 * lenses[0, 0, 2])
    cameras, last = Camera(path.cam_to_world, lenses), len(path) - 1
    between = np.unique(np.linspace(0, last, min(last + 1, _MOST_FRUSTA)).astype(int))[1:-1]
    chosen = [(int(index), _BETWEEN, 0.9) for index in between]
    chosen += [(last, _END, 1.6), (0, _START, 1.6)]
    return [(frustum_edges(cameras, index, hw, depth), c, lw) for index, c, lw in chosen]


def _draw(
    axes: Any, spots: np.ndarray, edges: list, columns: tuple[int, int], center: Any, half: float
) -> None:
    """Draw frusta, path and scale of one view."""
    middle = center[list(columns)]
    for frustum, color, width in edges:
        for first, second in frustum:
            ends = np.stack([first, second])[:, columns]
            axes.plot(*ends.T, color=color, lw=width, zorder=4, solid_capstyle="round")
    axes.plot(*spots.T, color=_PAPER, lw=3.4, zorder=5)
    axes.plot(*spots.T, color=_INK, lw=1.5, zorder=6)
    axes.plot(*spots[-1], "o", color=_END, ms=5, zorder=7)
    axes.plot(*spots[0], "o", color=_START, ms=5, zorder=8)
    length = round_length(half / 2)
    left, base = middle[0] - 0.93 * half, middle[1] - 0.94 * half
    axes.plot([left, left + length], [base, base], color=_INK, lw=3, solid_capstyle="butt")
    unit = f"{length:g} scene unit" + "s" * (length != 1)
    axes.text(left, base + 0.03 * half, unit, color=_INK, fontsize=9)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _legend(figure: Any, count: int) -> None:
    from matplotlib.lines import Line2D

    names = {
        _START: "first camera",
        _END: "last",
        _BETWEEN: "some between",
        _INK: f"{count} in all",
    }
    entries = [Line2D([], [], color=color, lw=2, label=name) for color, name in names.items()]
    figure.legend(
        handles=entries, loc="upper right", ncols=4, frameon=False, fontsize=9.5, labelcolor=_INK,
        bbox_to_anchor=(0.99, 0.99),
    )  # fmt: skip
