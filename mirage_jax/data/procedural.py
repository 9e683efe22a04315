"""A world without any game: a room of textured boxes with exact depth and one moving box.

Needs NumPy only.  World axes are x, y on the floor and z up, in metres; cameras are OpenCV camera
to world.  Pictures are averaged over sub-pixel rays, depth is exact at pixel centres.  The moving
box is marked in both masks: nothing of it belongs to the static world.

Read next: ``clip.py`` for the record, ``doom/record.py`` for the real source.
"""

import dataclasses
import math
import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.clip import ClipShape, ObjectTable
from mirage_jax.data.kinds import CEILING, FLOOR, WALL

NAME = "procedural"
_WAVES = 4


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
    """Sizes of the scene and of its pictures.

    Attributes:
        frames, height, width: size of a clip.
        room: inner size of the room in metres (x, y, z).
        boxes: number of standing boxes.
        moving: whether a box moves through the room.
        supersample: rays per pixel side for the colours.
        focal: focal length in picture widths.
    """

    frames: int = 81
    height: int = 96
    width: int = 128
    room: tuple[float, float, float] = (12.0, 9.0, 3.5)
    boxes: int = 7
    moving: bool = True
    supersample: int = 2
    focal: float = 0.5

    def __post_init__(self) -> None:
        smallest = min(self.frames, self.height, self.width, self.supersample)
        if smallest < 1 or self.boxes < 0 or min(self.room) < 2.0 or self.focal <= 0:
            raise ValueError(
                f"ProceduralConfig: got {self}; expected positive sizes and a room of at least 2 m"
            )

    @property
    def intrinsics(self) -> np.ndarray:
        """Pinhole matrix [3,3] float32 with square pixels and the centre in the middle."""
        focal = self.focal * self.width
        return np.array(
            [[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1]], np.float32
        )


class Scene(NamedTuple):
    """Axis-aligned boxes; box 0 is the room, seen from inside, the last one moves.

    ``low``, ``high`` [n,3] metres; ``color`` [n,6,3] of each face; ``waves`` [n,6,W,3]: two
    spatial frequencies (radians a metre) and a phase of each face's pattern; ``sway`` [3]: how
    far the last box moves to either side; ``sway_rate``: radians a frame (0: it stands).
    """

    low: np.ndarray
    high: np.ndarray
    color: np.ndarray
    waves: np.ndarray
    sway: np.ndarray
    sway_rate: float


class View(NamedTuple):
    """One rendered frame; see ``clip.py`` for the meaning of the arrays."""

    rgb: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    kind: UInt8[np.ndarray, "H W"]
    moving: Bool[np.ndarray, "H W"]


def make_scene(seed: int, config: ProceduralConfig = ProceduralConfig()) -> Scene:
    """Draw a scene: boxes stand in the middle and at the walls, leaving a way round."""
    rng = np.random.default_rng((seed, 0))
    size = np.array(config.room)
    low, high = [np.zeros(3)], [size]
    for number in range(config.boxes):
        extent = rng.uniform((0.4, 0.4, 0.6), (1.1, 1.1, 2.6))
        extent = np.minimum(extent, size / (8, 8, 1.2))
        radius = 0.12 if number % 2 else 0.46
        angle = rng.uniform(0, 2 * math.pi)
        centre = size[:2] * (0.5 + radius * np.array([math.cos(angle), math.sin(angle)]))
        corner = np.clip(centre - extent[:2] / 2, 0, size[:2] - extent[:2])
        low.append(np.array([*corner, 0.0]))
        high.append(low[-1] + extent)
    # The moving box hovers above the standing ones' bases in the middle of the room.
    middle = np.array([size[0] / 2, size[1] / 2, 0.3])
    low.append(middle - (0.25, 0.25, 0.0))
    high.append(middle + (0.25, 0.25, 0.9))
    count = len(low)
    color = rng.uniform(60, 200, (count, 6, 3))
    frequency = rng.uniform(2.0, 9.0, (count, 6, _WAVES, 2)) * rng.choice((-1, 1))
    phase = rng.uniform(0, 2 * math.pi, (count, 6, _WAVES, 1))
    angle = rng.uniform(0, 2 * math.pi)
    sway = np.array([math.cos(angle), math.sin(angle), 0.0]) * 0.15 * min(config.room[:2])
    return Scene(
        np.array(low),
        np.array(high),
        color,
        np.concatenate([frequency, phase], axis=-1),
        sway,
        2 * math.pi / 60 if config.moving else 0.0,
    )


def moving_box_center(scene: Scene, frame: int) -> Float[np.ndarray, "3"]:
    """Return where the moving box's centre is in a frame, world metres."""
    centre = (scene.low[-1] + scene.high[-1]) / 2
    return centre + scene.sway * math.sin(scene.sway_rate * frame)


def render_view(
    scene: Scene,
    cam_to_world: Float[np.ndarray, "4 4"],
    config: ProceduralConfig = ProceduralConfig(),
    *,
    frame: int = 0,
) -> View:
    """Render one frame by intersecting every ray with every box.

    Args:
        scene: the boxes.
        cam_to_world: the camera, which must be inside the room and outside the boxes.
        config: size of the picture.
        frame: time, which decides where the moving box is.
    """
    depth, box, face = _see_centers(scene, cam_to_world, config, frame)
    offsets = (np.arange(config.supersample) + 0.5) / config.supersample
    rays = _pixel_rays(config, cam_to_world, offsets)
    color = _shade(scene, frame, cam_to_world[:3, 3], rays).mean(axis=0)
    kind = np.full(depth.shape, WALL, np.uint8)
    kind[(box == 0) & (face == 4)] = FLOOR
    kind[(box == 0) & (face == 5)] = CEILING
    return View(np.rint(color).astype(np.uint8), depth, kind, _moves(scene, box))


def render_depth(
    scene: Scene,
    cam_to_world: Float[np.ndarray, "4 4"],
    config: ProceduralConfig = ProceduralConfig(),
    *,
    frame: int = 0,
) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return depth and the moving mask of `render_view`, without its cost of colours.

    Args:
        scene: the boxes.
        cam_to_world: the camera, which must be inside the room and outside the boxes.
        config: size of the picture.
        frame: time, which decides where the moving box is.
    """
    depth, box, _ = _see_centers(scene, cam_to_world, config, frame)
    return depth, _moves(scene, box)


def _see_centers(
    scene: Scene, cam_to_world: np.ndarray, config: ProceduralConfig, frame: int
) -> list[np.ndarray]:
    """Return depth, box and face [H,W] at the pixels' centres."""
    rays = _pixel_rays(config, cam_to_world, np.array([0.5]))
    return [part[0] for part in _intersect(scene, frame, cam_to_world[:3, 3], rays)]


def _moves(scene: Scene, box: np.ndarray) -> np.ndarray:
    return (box == len(scene.low) - 1) & (scene.sway_rate != 0)


def default_walk(seed: int, config: ProceduralConfig = ProceduralConfig()) -> np.ndarray:
    """Return a walk round the room's middle and half of it back, looking about: [f,4,4]."""
    rng = np.random.default_rng((seed, 1))
    time = np.linspace(0, 1, config.frames)
    sweep = rng.uniform(2.0, 4.5) * rng.choice((-1, 1))
    angle = rng.uniform(0, 2 * math.pi) + sweep * np.sin(np.pi * 0.75 * time)
    glance = rng.uniform(0.3, 0.8) * np.sin(2 * np.pi * rng.uniform(1, 2) * time)
    # Ahead, turned half way to the middle of the room, where the moving box is.
    yaw = angle + np.sign(sweep) * (math.pi / 2 + 0.6 + glance)
    size = np.array(config.room)
    cameras = np.tile(np.eye(4), (config.frames, 1, 1))
    cameras[:, 0, 3] = size[0] * (0.5 + 0.3 * np.cos(angle))
    cameras[:, 1, 3] = size[1] * (0.5 + 0.3 * np.sin(angle))
    cameras[:, 2, 3] = 1.4
    cameras[:, :3, 0] = np.stack([np.sin(yaw), -np.cos(yaw), 0 * yaw], axis=-1)
    cameras[:, :3, 1] = (0, 0, -1)
    cameras[:, :3, 2] = np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1)
    return cameras


def render_clip(
    seed: int,
    config: ProceduralConfig = ProceduralConfig(),
    *,
    cam_to_world: Float[np.ndarray, "f 4 4"] | None = None,
) -> dict[str, Any]:
    """Render a clip of the record format.

    Args:
        seed: seed of the scene and of the default walk.
        config: sizes; ``frames`` gives way to the length of ``cam_to_world``.
        cam_to_world: the cameras; default ``default_walk``.

    Raises:
        ValueError: a camera is outside the room.
    """
    cameras = default_walk(seed, config) if cam_to_world is None else np.asarray(cam_to_world)
    centres = cameras[:, :3, 3]
    if (centres <= 0).any() or (centres >= np.array(config.room)).any():
        raise ValueError(
            f"cam_to_world: got positions from {centres.min(0)} to {centres.max(0)}, expected "
            f"inside the room 0..{config.room} metres"
        )
    scene = make_scene(seed, config)
    views = [render_view(scene, c, config, frame=i) for i, c in enumerate(cameras)]
    objects = ObjectTable(len(views))
    for frame, view in enumerate(views):
        if view.moving.any():
            row = objects.add(frame, 1, "MovingBox")
            objects.position[frame, row] = moving_box_center(scene, frame)
            objects.moving[row] = True
    moving = np.stack([view.moving for view in views])
    return objects.arrays() | {
        "rgb": np.stack([view.rgb for view in views]),
        "depth": np.stack([view.depth for view in views]).astype(np.float16),
        "kind": np.stack([view.kind for view in views]),
        "sprite": moving,
        "moving": moving,
        "object_index": moving.astype(np.uint8),
        "cam_to_world": cameras.astype(np.float32),
        "intrinsics": config.intrinsics,
        "level": f"procedural/{seed}",
        "path": "walk" if cam_to_world is None else "given",
        "seed": np.int64(seed),
    }


def record_split(
    directory: str | os.PathLike[str],
    split: str,
    clips: int,
    *,
    seed: int = 0,
    config: ProceduralConfig = ProceduralConfig(),
) -> None:
    """Record a split of different rooms; clip i has seed ``2 * (seed + i)``, plus 1 for val.

    Raises:
        ValueError: a split other than train and val.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split: got {split!r}, expected 'train' or 'val'")
    writer = SplitWriter(directory, NAME, split, 1)
    seeds = (2 * (seed + number) + (split == "val") for number in range(clips))
    writer.write_shard(0, (render_clip(one, config) for one in seeds))
    shape = ClipShape(config.frames, config.height, config.width)
    writer.finish(
        shape, "Textured boxes with exact depth and one moving box, drawn by ray casting."
    )


def _pixel_rays(
    config: ProceduralConfig, cam_to_world: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """World directions [s*s,H,W,3] of unit depth, one for each sub-pixel offset."""
    intrinsics = config.intrinsics.astype(np.float64)
    v, u = np.meshgrid(np.arange(config.height), np.arange(config.width), indexing="ij")
    dv, du = (grid.reshape(-1, 1, 1) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    x = (u + du - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (v + dv - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ cam_to_world[:3, :3].T


def _intersect(
    scene: Scene, frame: int, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depth, box and face (2 * axis + side) of the nearest hit of every ray."""
    # A ray parallel to a slab never reaches it; a tiny component keeps the division finite.
    inverse = 1 / np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    depth = np.full(rays.shape[:-1], np.inf)
    box = np.zeros(rays.shape[:-1], np.int64)
    face = np.zeros(rays.shape[:-1], np.int64)
    for number in range(len(scene.low)):
        shift = moving_shift(scene, number, frame)
        to_low = (scene.low[number] + shift - origin) * inverse
        to_high = (scene.high[number] + shift - origin) * inverse
        enter, leave = np.minimum(to_low, to_high), np.maximum(to_low, to_high)
        if number == 0:
            axis = leave.argmin(axis=-1)
            hit, valid = leave.min(axis=-1), True
            at_high = np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0
        else:
            axis = enter.argmax(axis=-1)
            hit = enter.max(axis=-1)
            valid = (hit > 0) & (hit < leave.min(axis=-1))
            at_high = np.take_along_axis(rays, axis[..., None], -1)[..., 0] < 0
        nearer = valid & (hit < depth)
        depth = np.where(nearer, hit, depth)
        box = np.where(nearer, number, box)
        face = np.where(nearer, 2 * axis + at_high, face)
    return depth, box, face


def moving_shift(scene: Scene, box: int, frame: int) -> np.ndarray:
    """Return how far a box has moved from where the scene lists it: [3] metres."""
    if box != len(scene.low) - 1:
        return np.zeros(3)
    return scene.sway * math.sin(scene.sway_rate * frame)


def _shade(scene: Scene, frame: int, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    depth, box, face = _intersect(scene, frame, origin, rays)
    points = origin + rays * depth[..., None]
    points = points - (box == len(scene.low) - 1)[..., None] * moving_shift(
        scene, len(scene.low) - 1, frame
    )
    axis = face // 2
    across = np.where(axis == 0, points[..., 1], points[..., 0])
    up = np.where(axis == 2, points[..., 1], points[..., 2])
    waves = scene.waves[box, face]
    pattern = np.sin(
        waves[..., 0] * across[..., None] + waves[..., 1] * up[..., None] + waves[..., 2]
    ).sum(axis=-1)
    # Smooth-edged tiles on top of waves: edges to track, no frequencies beyond the picture.
    tiles = np.tanh(4 * np.sin(math.pi * across) * np.sin(math.pi * up))
    brightness = 0.75 + 0.06 * pattern + 0.18 * tiles
    return np.clip(scene.color[box, face] * brightness[..., None], 0, 255)
