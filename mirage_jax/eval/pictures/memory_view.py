"""Pictures of a memory: from above and in perspective, with the cameras that wrote or read it.

Conventions: the world is turned so that up is +z. What is above the cameras' eyes (ceilings) is
left out, since it would hide the rest. Rows are tiles along the surface they lie on, drawn from far
to near. Lengths are scene units. Read next: `memory_scene.py` (what is drawn).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.eval.pictures.memory_scene import DrawnScene, frustum_edges, orbit_view

_INK, _PAPER = "#20242b", "#ffffff"
_START, _BETWEEN, _END = "#0a9d8f", "#9aa3ad", "#e0475b"
_DOTS_PER_INCH = 150
_PANEL_INCHES = 7.0
_MOST_FRUSTA = 7
# How much the farthest tiles of the perspective fade into the paper.
_HAZE = 0.3


def write_memory_view(path: str | Path, scene: DrawnScene, title: str, colors: str) -> None:
    """Draw a scene from above and in perspective, side by side, as one PNG.

    Args:
        path: File to write; missing folders are made.
        scene: See `memory_scene.drawn_scene`.
        title: First line of the heading.
        colors: What the colours mean, in a few words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((2 * _PANEL_INCHES, _PANEL_INCHES + 0.9), dpi=_DOTS_PER_INCH, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    above, side = figure.subplots(1, 2)
    draw_above(above, scene)
    draw_perspective(side, scene)
    above.set_title("from above", color=_INK, fontsize=11)
    side.set_title("in perspective", color=_INK, fontsize=11)
    figure.text(0.02, 0.97, title, color=_INK, fontsize=13, weight="bold", va="top")
    hidden = f"; {scene.hidden:,} rows above eye height left out" if scene.hidden else ""
    figure.text(0.02, 0.925, f"{colors}{hidden}", color=_INK, fontsize=9.5, va="top", alpha=0.75)
    _draw_legend(figure, scene)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.05, top=0.86, wspace=0.02)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_above(axes: Any, scene: DrawnScene) -> None:
    """Draw a scene from above into axes of Matplotlib."""
    low, high = scene.extent()
    center, half = (low + high)[:2] / 2, 0.56 * max((high - low)[:2].max(), 1e-6)
    _frame(axes, center, half)
    order = np.argsort(scene.points[:, 2], kind="stable")
    corners = scene.tile_corners()[order]
    _draw_tiles(axes, corners[..., :2], scene.colors[order])
    for first, second, color in _camera_lines(scene):
        axes.plot(*np.stack([first, second])[:, :2].T, color=color, lw=1.2, zorder=4)
    _draw_path(axes, scene.centers[:, :2])
    _draw_scale_bar(axes, center, half)


def draw_perspective(axes: Any, scene: DrawnScene) -> None:
    """Draw a scene in perspective into axes of Matplotlib."""
    view = orbit_view(scene)
    spots, depth = view.project(scene.points)
    eyes, _ = view.project(scene.centers)
    spread = np.concatenate([np.percentile(spots, (0.5, 99.5), axis=0), eyes])
    low, high = spread.min(0), spread.max(0)
    _frame(axes, (low + high) / 2, 0.56 * max((high - low).max(), 1e-6))
    _draw_floor(axes, scene, view)
    order = np.argsort(-depth, kind="stable")
    corners, _ = view.project(scene.tile_corners()[order].reshape(-1, 3))
    fade = _HAZE * (depth - depth.min()) / max(np.ptp(depth), 1e-6)
    colors = scene.colors + fade[:, None] * (1 - scene.colors)
    _draw_tiles(axes, corners.reshape(-1, 4, 2), colors[order])
    for first, second, color in _camera_lines(scene):
        line, _ = view.project(np.stack([first, second]))
        axes.plot(*line.T, color=color, lw=1.2, zorder=4)
    _draw_path(axes, eyes)


def _frame(axes: Any, center: np.ndarray, half: float) -> None:
    axes.set_xlim(center[0] - half, center[0] + half)
    axes.set_ylim(center[1] - half, center[1] + half)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_tiles(axes: Any, corners: np.ndarray, colors: np.ndarray) -> None:
    """Draw quadrilaterals [n, 4, 2], later ones over earlier ones; seen edge-on they stay lines."""
    from matplotlib.collections import PolyCollection

    axes.add_collection(
        PolyCollection(
            list(corners), facecolors=colors, edgecolors=colors, linewidths=0.7, zorder=2
        )
    )


def _draw_path(axes: Any, spots: np.ndarray) -> None:
    if len(spots):
        axes.plot(*spots.T, color=_PAPER, lw=3.2, zorder=5, solid_capstyle="round")
        axes.plot(*spots.T, color=_INK, lw=1.6, zorder=6, solid_capstyle="round")


def _camera_lines(scene: DrawnScene) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Return the edges of some cameras' frusta with their colours, first and last on top."""
    last = len(scene.centers) - 1
    if last < 0:
        return []
    between = np.unique(np.linspace(0, last, min(last + 1, _MOST_FRUSTA)).astype(int))[1:-1]
    chosen = [(int(index), _BETWEEN) for index in between] + [(last, _END), (0, _START)]
    scale = scene.camera_scale()
    lines = []
    for index, color in chosen:
        edges = frustum_edges(scene.cameras, index, scene.image_hw, scale)
        lines += [(first, second, color) for first, second in edges]
    return lines


def _draw_scale_bar(axes: Any, center: np.ndarray, half: float) -> None:
    length = round_length(half / 2)
    left, base = center[0] - 0.93 * half, center[1] - 0.95 * half
    axes.plot(
        [left, left + length], [base, base], color=_INK, lw=3, zorder=7, solid_capstyle="butt"
    )
    axes.text(
        left,
        base + 0.025 * half,
        f"{length:g} scene unit{'s' * (length != 1)}",
        color=_INK,
        fontsize=9,
        zorder=7,
    )


def _draw_floor(axes: Any, scene: DrawnScene, view: Any) -> None:
    """Draw a grid under the points, one scale-bar length a square."""
    low, high = scene.extent()
    step = round_length(max((high - low)[:2].max() / 8, 1e-6))
    first, last = np.floor(low[:2] / step), np.ceil(high[:2] / step)
    for axis in (0, 1):
        for number in np.arange(first[axis], last[axis] + 1):
            ends = np.empty((2, 3))
            ends[:, axis] = number * step
            ends[:, 1 - axis] = first[1 - axis] * step, last[1 - axis] * step
            ends[:, 2] = low[2]
            axes.plot(*view.project(ends)[0].T, color=_INK, alpha=0.13, lw=0.7, zorder=1)
    axes.text(
        0.99, 0.01, f"grid: {_units(step)}", color=_INK, fontsize=9, ha="right",
        transform=axes.transAxes,
    )  # fmt: skip


def _units(length: float) -> str:
    return f"{length:g} scene unit" + "s" * (length != 1)


def round_length(about: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above a length."""
    power = 10.0 ** np.floor(np.log10(about))
    return float(max(digit for digit in (1, 2, 5) if digit * power <= about * (1 + 1e-9)) * power)


def _draw_legend(figure: Any, scene: DrawnScene) -> None:
    from matplotlib.lines import Line2D

    if not len(scene.centers):
        return
    poses = scene.cameras.cam_to_world
    closed = np.allclose(poses[0], poses[-1], atol=1e-3)
    names = {_START: "first and last camera"} if closed else {_START: "first camera", _END: "last"}
    names |= {_BETWEEN: "some between", _INK: f"path of {len(poses)} cameras"}
    entries = [Line2D([], [], color=color, lw=2, label=name) for color, name in names.items()]
    figure.legend(
        handles=entries, loc="upper right", ncols=4, frameon=False, fontsize=9.5, labelcolor=_INK,
        bbox_to_anchor=(0.99, 0.985),
    )  # fmt: skip
