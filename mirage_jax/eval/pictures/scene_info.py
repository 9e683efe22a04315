"""What a scene holds, and what a world would remember of it, in figures.

Read next: `scene_view.py` (the same as a picture).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax import world_model
from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth import edge_validity
from mirage_jax.rollout.scene import Scene, fit_scene
from mirage_jax.rollout.world import WorldSpec
from mirage_jax.world_model import FAR


@dataclasses.dataclass(frozen=True)
class SceneInfo:
    """Figures of a scene.

    Attributes:
        name: of the scene.
        height, width: of its picture.
        frames: recorded ones, 1 for a single picture.
        fov: horizontal and vertical field of view, degrees.
        depth: 2nd, 50th and 98th percentile of known z-depth nearer than the sky, scene units.
        sky: share of pixels as far as the sky.
        unknown: share of pixels of unknown depth.
        edges: share of known pixels within 2 of a depth edge or of unknown depth.
        kept: share of pixels that may be remembered.
    """

    name: str
    height: int
    width: int
    frames: int
    fov: tuple[float, float]
    depth: tuple[float, float, float]
    sky: float
    unknown: float
    edges: float
    kept: float

    def lines(self) -> list[str]:
        """Return them as lines for people."""
        near, middle, far = self.depth
        return [
            f"{'picture':<14}{self.height}x{self.width}, frames {self.frames}",
            f"{'field of view':<14}{self.fov[0]:.1f} x {self.fov[1]:.1f} degrees",
            f"{'depth':<14}{near:.4g} to {far:.4g} (2 % to 98 %), median {middle:.4g} scene units",
            f"{'unknown':<14}{self.unknown:.1%}, sky {self.sky:.1%}, edges {self.edges:.1%}",
            f"{'kept':<14}{self.kept:.1%} may be remembered",
        ]


def describe_scene(scene: Scene) -> SceneInfo:
    """Measure a scene."""
    depth = np.asarray(scene.depth, np.float32)
    height, width = depth.shape
    known, near = depth > 0, (depth > 0) & (depth < FAR)
    found = np.percentile(depth[near if near.any() else known], (2, 50, 98))
    matrix = np.asarray(scene.camera.intrinsics, np.float64)
    sides = ((matrix[0, 0], matrix[0, 2], width), (matrix[1, 1], matrix[1, 2], height))
    fov = tuple(
        float(np.degrees(np.arctan(center / focal) + np.arctan((size - center) / focal)))
        for focal, center, size in sides
    )
    smooth = edge_validity(depth) if min(depth.shape) >= 3 else known
    return SceneInfo(
        name=scene.name,
        height=height,
        width=width,
        frames=1 if scene.path is None else len(scene.path.cam_to_world),
        fov=(fov[0], fov[1]),
        depth=(float(found[0]), float(found[1]), float(found[2])),
        sky=float((depth >= FAR).mean()),
        unknown=float(1 - known.mean()),
        edges=float(1 - smooth[known].mean()),
        kept=float((scene.keep & known).mean()),
    )


def memory_rows(scene: Scene, spec: WorldSpec) -> dict[str, Any]:
    """Write the start picture into an empty memory of a world, with empty tokens, and count.

    Returns:
        `cells` of a latent frame, how many of them are `kept`, and the `rows` that memory then
        holds (fewer where cells share a voxel or lie on depth edges).
    """
    fitted = fit_scene(scene, spec.frame_hw)
    start = stack_starts([fitted])
    depth, keep = world_model.grid_depth(
        start.depth, start.keep, spec.grid_hw, spec.chunk.write.depth
    )
    cells = spec.grid_hw[0] * spec.grid_hw[1]
    # One frame needs no more room than this, whatever the world's memory holds.
    memory = spec.memory
    pages = -(-2 * cells // memory.page_rows)
    small = dataclasses.replace(memory, capacity=pages * memory.page_rows, partitions=1)
    spec = dataclasses.replace(spec, memory=small)
    camera = Camera(*(np.asarray(leaf, np.float32)[None, None] for leaf in fitted.camera))
    camera = world_model.grid_camera(camera, spec.frame_hw, spec.grid_hw)
    tokens = jnp.zeros((1, 1, *spec.grid_hw, memory.channels), jnp.float32)
    empty = world_model.empty_memory(spec, 1)
    written, _ = jax.jit(world_model.remember, static_argnums=0)(
        spec, empty, tokens, depth[:, None], keep[:, None], camera, 0
    )
    return {"cells": cells, "kept": int(np.sum(keep)), "rows": int(written.count[0])}
