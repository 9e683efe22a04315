"""A scene as one picture: its image, its depth, and its points from above and in perspective.

Conventions: as in `memory_view.py`. Sky, and what may not be remembered, are no points.
Read next: `scene_info.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.eval.pictures.memory_scene import DrawnScene, drawn_scene
from mirage_jax.eval.pictures.memory_view import draw_above, draw_perspective
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import unproject
from mirage_jax.rollout.scene import Scene
from mirage_jax.world_model import FAR

# More points than this only make the picture slower.
_MOST_POINTS = 14_000
_INK, _PAPER = "#20242b", "#ffffff"
_PANEL_INCHES, _DOTS_PER_INCH = 5.6, 130
# Farther than so many times the median is left out: it would shrink the rest to a dot.
_FARTHEST = 8.0


def write_scene_view(path: Path, scene: Scene, lines: list[str]) -> None:
    """Draw a scene as a PNG.

    Args:
        path: file to write; missing folders are made.
        scene: any size.
        lines: written beside the title.

    Raises:
        ValueError: no pixel has known depth nearer than the sky.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    below, whole = _drawn(scene, True), _drawn(scene, False)
    height, width = scene.depth.shape
    tall = _PANEL_INCHES * min(max(height / width, 0.4), 1.2)
    figure = Figure((2 * _PANEL_INCHES, tall + _PANEL_INCHES + 1.8), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.set_facecolor(_PAPER)
    axes = figure.subplots(2, 2, height_ratios=[tall, _PANEL_INCHES])
    axes[0, 0].imshow(scene.image, interpolation="nearest")
    axes[0, 0].set_axis_off()
    _draw_depth(figure, axes[0, 1], scene)
    draw_above(axes[1, 0], below)
    draw_perspective(axes[1, 1], whole)
    hidden = " (what is above the eye left out)" if below.hidden else ""
    titles = ("picture", "z-depth", f"from above{hidden}", "in perspective")
    for panel, title in zip(axes.flat, titles, strict=True):
        panel.set_title(title, color=_INK, fontsize=10)
    figure.text(0.02, 0.985, scene.name, color=_INK, fontsize=13, weight="bold", va="top")
    text = "\n".join(lines)
    figure.text(0.02, 0.96, text, color=_INK, fontsize=8.5, va="top", alpha=0.8, family="monospace")
    figure.subplots_adjust(
        left=0.01, right=0.94, bottom=0.01, top=1 - 1.75 / figure.get_figheight(), wspace=0.05,
        hspace=0.08,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _drawn(scene: Scene, hide_above: bool) -> DrawnScene:
    depth = np.asarray(scene.depth, np.float32)
    shown = (depth > 0) & (depth < FAR) & scene.keep
    if not shown.any():
        raise ValueError(
            f"{scene.name}: got no pixel that is known, kept and nearer than the sky, expected "
            "some; check depth and mask"
        )
    shown &= depth <= _FARTHEST * np.median(depth[shown])
    step = max(1, int(np.ceil(np.sqrt(shown.sum() / _MOST_POINTS))))
    thinned = np.zeros_like(shown)
    thinned[step // 2 :: step, step // 2 :: step] = True
    shown &= thinned
    points = unproject(depth, scene.camera)[shown]
    cameras = scene.path
    if cameras is None:
        cameras = Camera(*(np.asarray(leaf)[None] for leaf in scene.camera))
    return drawn_scene(
        points, depth[shown], scene.image[shown], cameras, depth.shape, hide_above=hide_above
    )


def _draw_depth(figure: Any, axes: Any, scene: Scene) -> None:
    """Draw depth in colours, nearer things lighter; unknown and sky stay white."""
    depth = np.asarray(scene.depth, np.float32)
    shown = np.where((depth > 0) & (depth < FAR), depth, np.nan)
    low, high = np.nanpercentile(shown, (1, 99))
    drawn = axes.imshow(
        shown, cmap="magma_r", vmin=low, vmax=max(high, low * 1.001), interpolation="nearest"
    )
    axes.set_axis_off()
    bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("scene units", color=_INK, fontsize=8)
    bar.ax.tick_params(labelsize=8, colors=_INK)
