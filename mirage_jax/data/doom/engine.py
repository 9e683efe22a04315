"""ViZDoom as a camera with exact poses, depth and object masks.

Motion is asked for in map units a frame and solved for the engine's inertia, so a planned path is
followed closely; the pose is always read back.  A frame is two game tics (17.5 frames a second).
Pictures are rendered at 640x480 and averaged 5x5, which removes most of the engine's aliasing.
Light is the Infrared goggles': bright and independent of distance, so that a surface looks the
same from near and far.  Read next: ``paths.py``.
"""

import dataclasses
import math
import tempfile
from typing import Any, NamedTuple

import numba
import numpy as np

from mirage_jax.data.clip import FAR
from mirage_jax.data.doom import cast
from mirage_jax.data.doom.levels import Level, wad_path
from mirage_jax.data.doom.wad import LevelMap, read_level
from mirage_jax.data.kinds import FLOOR

UNITS_PER_METRE = 32.0
FRAMES_PER_SECOND = 17.5
EYE_HEIGHT = 41.0  # above the floor, map units

_TICS = 2
_FRICTION = 0.90625  # of the player's velocity each tic
_COMMAND_PER_THRUST = 32.0
_MAX_COMMAND = 100.0
_LIGHT_TICS = 1750  # goggles last 4200 tics and blink before they end
_SETTLE_TICS = 20  # the eye sinks and rises after a teleport
_FIRST_SPRITE = 2  # label buffer: 0 walls, 1 floors and ceilings, then sprites, 255 own weapon
_MOVING_CATEGORIES = frozenset({"Monster", "Player", "Projectile"})


class LevelLeft(RuntimeError):
    """The player walked through the level's exit."""


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """How the engine renders.

    Attributes:
        reduce: the 640x480 rendering is averaged over blocks of this size.
        monsters: whether monsters stand in the level.
        awake: whether they see the player, come and shoot; otherwise they stand where they are.
        skill: Doom's skill level 1 to 5, which decides how many things are placed.
    """

    reduce: int = 5
    monsters: bool = True
    awake: bool = False
    skill: int = 2

    @property
    def picture_hw(self) -> tuple[int, int]:
        """Height and width of the recorded picture in pixels."""
        return 480 // self.reduce, 640 // self.reduce


class SeenObject(NamedTuple):
    """An object visible in a frame; position in metres, world frame."""

    id: int
    name: str
    category: str
    position: tuple[float, float, float]
    moving: bool


class Observation(NamedTuple):
    """What is recorded of one frame, plus what planning needs.

    ``rgb`` [H,W,3] uint8; ``depth`` [H,W] float32 metres (0 unknown, 1000 sky); ``kind`` [H,W]
    uint8 as in ``kinds.py``; ``sprite``, ``moving`` [H,W] bool; ``object_index`` [H,W] uint8: 0 or
    1 + row of ``objects``; ``cam_to_world`` [4,4] float64 (OpenCV axes, metres); ``eye`` in map
    units; ``floor``, ``ceiling`` [s]: live sector heights; ``depth_buffer`` [480,640] uint8: the
    engine's own coarse one, when asked for; ``secrets``: secret places found so far.
    """

    rgb: np.ndarray
    depth: np.ndarray
    kind: np.ndarray
    sprite: np.ndarray
    moving: np.ndarray
    object_index: np.ndarray
    objects: tuple[SeenObject, ...]
    cam_to_world: np.ndarray
    eye: cast.Eye
    floor: np.ndarray
    ceiling: np.ndarray
    depth_buffer: np.ndarray | None
    secrets: int


class Engine:
    """One running game.  Use as a context manager; ``reset`` before anything else."""

    def __init__(self, settings: EngineSettings = EngineSettings(), *, depth_buffer: bool = False):
        self.settings = settings
        height, width = settings.picture_hw
        self.pinhole = cast.doom_pinhole(width, height)
        self._levels: dict[Level, LevelMap] = {}
        self._level: Level | None = None
        self._config = tempfile.TemporaryDirectory(prefix="mirage-doom-")
        self._wants_depth = depth_buffer
        self._game: Any = None
        self._state: Any = None
        self._light_left = 0

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the game and remove its temporary files."""
        if self._game is not None:
            self._game.close()
            self._game = None
        self._config.cleanup()

    @property
    def map(self) -> LevelMap:
        """The level being played."""
        if self._level is None:
            raise ValueError("engine: no level yet; call reset(level, seed) first")
        return self._levels[self._level]

    @property
    def intrinsics(self) -> np.ndarray:
        """Pinhole matrix [3,3] float32 in pixels of the recorded picture."""
        p = self.pinhole
        return np.array(
            [[p.focal_x, 0, p.width / 2], [0, p.focal_y, p.height / 2], [0, 0, 1]], np.float32
        )

    def reset(self, level: Level, seed: int) -> None:
        """Start a level afresh; the same seed and motions give the same pictures, bit for bit."""
        if level not in self._levels:
            self._levels[level] = read_level(wad_path(level), level.name)
        if self._game is not None and self._level is not None and self._level.wad != level.wad:
            self._game.close()
            self._game = None
        if self._game is None:
            self._game = self._start(level)
        self._level = level
        self._game.set_doom_map(level.name)
        self._game.set_seed(seed)
        self._game.new_episode()
        for command in ("god",) if self.settings.awake else ("god", "notarget"):
            self._game.send_game_command(command)
        self._light_left = 0
        # The first frames are dark and the goggles take effect after a tic.
        self.act((0.0, 0.0, 0.0), _TICS)

    def teleport(self, x: int, y: int) -> bool:
        """Put the player at a place in map units; False if the place is blocked or unsafe."""
        self._game.send_game_command(f"warp {x} {y}")
        self.act((0.0, 0.0, 0.0), _SETTLE_TICS)
        eye = self._eye()
        floor = self._floor_under(x, y)
        landed = abs(eye.x - x) < 2 and abs(eye.y - y) < 2
        return landed and floor is not None and abs(eye.z - floor - EYE_HEIGHT) < 1

    def turn_to(self, yaw_degrees: float) -> None:
        """Turn on the spot to a yaw from +x towards +y."""
        change = yaw_degrees - math.degrees(self._eye().yaw)
        self.act((0.0, 0.0, -((change + 180) % 360 - 180)), 1)
        self.act((0.0, 0.0, 0.0), 1)

    def move(self, dx: float, dy: float, turn_degrees: float) -> None:
        """Advance one frame, aiming at a displacement in map units and a turn to the left.

        Raises:
            LevelLeft: the player reached the exit.
        """
        variables = self._variables()
        yaw = math.radians(variables[3] + 0.75 * turn_degrees)
        # Over two tics with velocity v and thrust a each tic: d = (1 + f) v + (2 + f) a.
        thrust_x = (dx - (1 + _FRICTION) * variables[5]) / (2 + _FRICTION)
        thrust_y = (dy - (1 + _FRICTION) * variables[6]) / (2 + _FRICTION)
        forward = thrust_x * math.cos(yaw) + thrust_y * math.sin(yaw)
        right = thrust_x * math.sin(yaw) - thrust_y * math.cos(yaw)
        commands = np.clip(
            [forward * _COMMAND_PER_THRUST, right * _COMMAND_PER_THRUST],
            -_MAX_COMMAND,
            _MAX_COMMAND,
        )
        self.act((commands[0], commands[1], -turn_degrees / _TICS), _TICS)

    def observe(self) -> Observation:
        """Read the current frame."""
        state = self._state
        eye = self._eye()
        floor, ceiling = self._sector_heights()
        surface = cast.cast_depth(self.map.geometry, floor, ceiling, eye=eye, pinhole=self.pinhole)
        depth = np.where(np.isinf(surface.depth), FAR, surface.depth / UNITS_PER_METRE)
        objects = tuple(_seen_object(label) for label in state.labels if label.value != 255)
        values = [label.value for label in state.labels if label.value != 255]
        moving_values = np.zeros(256, np.bool_)
        rows = np.zeros(256, np.uint8)
        for row, (value, one) in enumerate(zip(values, objects, strict=True)):
            moving_values[value] = one.moving
            rows[value] = row + 1
        sprite, moving, object_index = _reduce_labels(
            state.labels_buffer, self.settings.reduce, moving_values, rows
        )
        for row, one in enumerate(objects):
            depth[object_index == row + 1] = _forward_distance(one.position, eye)
        depth_buffer = state.depth_buffer.copy() if self._wants_depth else None
        return Observation(
            rgb=_reduce_picture(state.screen_buffer, self.settings.reduce),
            depth=depth.astype(np.float32),
            kind=surface.kind,
            sprite=sprite,
            moving=moving,
            object_index=object_index,
            objects=objects,
            cam_to_world=camera_to_world(eye),
            eye=eye,
            floor=floor,
            ceiling=ceiling,
            depth_buffer=depth_buffer,
            secrets=int(state.game_variables[7]),
        )

    def _start(self, level: Level) -> Any:
        import vizdoom as vzd

        game = vzd.DoomGame()
        game.set_doom_config_path(f"{self._config.name}/engine.ini")
        game.set_doom_game_path(wad_path(level))
        game.set_doom_map(level.name)
        game.set_doom_skill(self.settings.skill)
        game.set_screen_resolution(vzd.ScreenResolution.RES_640X480)
        game.set_screen_format(vzd.ScreenFormat.RGB24)
        game.set_labels_buffer_enabled(True)
        game.set_sectors_info_enabled(True)
        game.set_depth_buffer_enabled(self._wants_depth)
        for part in ("hud", "weapon", "crosshair", "decals", "particles", "messages"):
            getattr(game, f"set_render_{part}")(False)
        game.set_render_screen_flashes(False)
        variable, button = vzd.GameVariable, vzd.Button
        game.set_available_game_variables(
            [variable.CAMERA_POSITION_X, variable.CAMERA_POSITION_Y, variable.CAMERA_POSITION_Z]
            + [variable.CAMERA_ANGLE, variable.CAMERA_PITCH]
            + [variable.VELOCITY_X, variable.VELOCITY_Y, variable.SECRETCOUNT]
        )
        game.set_available_buttons(
            [button.MOVE_FORWARD_BACKWARD_DELTA, button.MOVE_LEFT_RIGHT_DELTA]
            + [button.TURN_LEFT_RIGHT_DELTA]
        )
        game.set_window_visible(False)
        game.set_mode(vzd.Mode.PLAYER)
        game.set_episode_timeout(10**6)
        game.set_episode_start_time(1)
        monsters = "" if self.settings.monsters else " +sv_nomonsters 1"
        game.add_game_args("+sv_cheats 1 +movebob 0 +con_midtime 0" + monsters)
        game.init()
        return game

    def act(self, command: tuple[float, float, float], tics: int) -> None:
        """Hold one engine command for some tics: forward, right (thrust) and right turn (degrees).

        Raises:
            LevelLeft: the player reached the exit.
        """
        if self._light_left <= 0:
            self._game.send_game_command("give Infrared")
            self._light_left = _LIGHT_TICS
        self._light_left -= tics
        self._game.make_action(list(command), tics)
        if self._game.is_episode_finished():
            raise LevelLeft(f"engine: the player left {self._level}")
        self._state = self._game.get_state()

    def _variables(self) -> np.ndarray:
        return np.asarray(self._state.game_variables, np.float64)

    def _eye(self) -> cast.Eye:
        x, y, z, degrees = (float(value) for value in self._variables()[:4])
        return cast.Eye(x, y, z, math.radians(degrees))

    def _sector_heights(self) -> tuple[np.ndarray, np.ndarray]:
        sectors = self._state.sectors
        floor = np.array([sector.floor_height for sector in sectors])
        return floor, np.array([sector.ceiling_height for sector in sectors])

    def _floor_under(self, x: float, y: float) -> float | None:
        floor, ceiling = self._sector_heights()
        # The lowest row of a picture with a tiny focal length looks almost straight down.
        eye = self._eye()._replace(x=x, y=y)
        column = cast.Pinhole(1, 3, 1.0, 1e-3)
        below = cast.cast_depth(self.map.geometry, floor, ceiling, eye=eye, pinhole=column)
        if below.kind[2, 0] != FLOOR:
            return None
        return eye.z - float(below.depth[2, 0]) * 1e3


def camera_to_world(eye: cast.Eye) -> np.ndarray:
    """Return the OpenCV camera-to-world matrix [4,4] in metres of an eye in map units."""
    cosine, sine = math.cos(eye.yaw), math.sin(eye.yaw)
    matrix = np.eye(4)
    matrix[:3, 0] = (sine, -cosine, 0)
    matrix[:3, 1] = (0, 0, -1)
    matrix[:3, 2] = (cosine, sine, 0)
    matrix[:3, 3] = np.array([eye.x, eye.y, eye.z]) / UNITS_PER_METRE
    return matrix


def _seen_object(label: Any) -> SeenObject:
    position = (label.object_position_x, label.object_position_y, label.object_position_z)
    speed = abs(label.object_velocity_x) + abs(label.object_velocity_y)
    return SeenObject(
        id=label.object_id,
        name=label.object_name,
        category=label.object_category,
        position=tuple(value / UNITS_PER_METRE for value in position),
        moving=label.object_category in _MOVING_CATEGORIES or speed > 0,
    )


def _forward_distance(position: tuple[float, float, float], eye: cast.Eye) -> float:
    dx = position[0] - eye.x / UNITS_PER_METRE
    dy = position[1] - eye.y / UNITS_PER_METRE
    # A sprite half behind the eye plane is still drawn; keep its depth positive.
    return max(dx * math.cos(eye.yaw) + dy * math.sin(eye.yaw), 0.05)


@numba.njit(cache=True)
def _reduce_picture(picture, factor):
    """Average blocks of factor x factor pixels, rounding to the nearest value."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    reduced = np.empty((height, width, 3), np.uint8)
    area = factor * factor
    sums = np.empty((width, 3), np.int32)
    for i in range(height):
        sums[:] = 0
        for row in range(i * factor, (i + 1) * factor):
            for j in range(width):
                for column in range(j * factor, (j + 1) * factor):
                    for channel in range(3):
                        sums[j, channel] += picture[row, column, channel]
        for j in range(width):
            for channel in range(3):
                reduced[i, j, channel] = (sums[j, channel] + area // 2) // area
    return reduced


@numba.njit(cache=True)
def _reduce_labels(labels, factor, moving_values, rows):
    """Masks are true where any rendered pixel is; the object is the one at the block's centre."""
    height, width = labels.shape[0] // factor, labels.shape[1] // factor
    sprite = np.zeros((height, width), np.bool_)
    moving = np.zeros((height, width), np.bool_)
    index = np.zeros((height, width), np.uint8)
    for i in range(height):
        for j in range(width):
            block = labels[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            index[i, j] = rows[block[factor // 2, factor // 2]]
            largest = 0
            for row in range(factor):
                for column in range(factor):
                    largest = max(largest, block[row, column])
            if largest < _FIRST_SPRITE:
                continue
            sprite[i, j] = True
            for row in range(factor):
                for column in range(factor):
                    moving[i, j] |= moving_values[block[row, column]]
    return sprite, moving, index
