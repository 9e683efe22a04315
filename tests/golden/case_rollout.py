"""Reference frames, chunk plans and a whole rollout against the release's outputs.

A view's own first row and column of cells lie exactly on the edge of its grid: whether the release
counted them is a matter of its last bits. Where that decides, any choice that some rounding of them
gives is accepted, the line says so, and the rollout goes on with the release's choice.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth import resize_depth, resize_mask
from mirage_jax.memory.overlap import best_views, rows_in_view, view_overlaps
from mirage_jax.memory.rows import positions_in_order
from mirage_jax.memory.state import release_config
from mirage_jax.models.condition import RELEASE
from mirage_jax.models.config import ReferenceConfig, release_chunk
from mirage_jax.rollout.chunk import Prompt, Providers, References, Start
from mirage_jax.rollout.decode import decode_latents
from mirage_jax.rollout.depths import path_depth
from mirage_jax.rollout.loop import ChunkResult, RolloutConfig, rollout
from mirage_jax.rollout.plan import PlannedChunk, plan_chunks
from mirage_jax.rollout.world import World, WorldSpec
from mirage_jax.world_model import grid_camera
from tests.golden.case import Line, combined, relative_error, within
from tests.golden.release_files import (
    arrays,
    autoencoder,
    channel_last,
    denoiser,
    grid_cameras,
    sizes,
)

LATENT_LIMIT = 1e-2
FRAME_DECIBELS = 40.0
_EDGE = 1e-4  # cells


def selection(directory: Path) -> Iterator[Line]:
    """Compare overlaps of past frames, the references picked, and chunk plans."""
    yield combined("selection", _selection(directory))


def whole_rollout(directory: Path) -> Iterator[Line]:
    """Compare a rollout of several chunks: latents, references, memory, frames."""
    yield combined("rollout", _whole_rollout(directory))


def _selection(directory: Path) -> Iterator[Line]:
    given, memory = sizes(directory, "selection.json"), arrays(directory, "memory.npz")
    hw = memory["latents"].shape[2:]
    points = memory["points1"][memory["valid1"]]
    config = release_chunk().references
    views = [grid_cameras(directory, given[name], hw) for name in ("history", "target")]
    overlaps = view_overlaps(points, *views, hw, config.voxel_size)
    low, high = overlap_bounds(points, *views, hw, config.voxel_size)
    expected = np.asarray(given["iou"])
    off = np.where((expected >= low) & (expected <= high), 0.0, np.abs(overlaps - expected))
    note = "" if np.abs(overlaps - expected).max() < 1e-6 else "up to rounding at edges of views"
    yield within("overlap", float(off.max()), 1e-6, note)
    chosen = best_views(overlaps, config.most, config.threshold)
    yield _choice("picked", chosen, given["selected"], (low, high), config)
    longest = max(chunk[2] for plan in given["plans"].values() for chunk in plan)
    stride = autoencoder(directory)[0].temporal_stride
    chunk = release_chunk(latent_frames=1 + (longest - 1) // stride)
    wrong = [
        frames
        for frames, plan in given["plans"].items()
        if [[c.start, c.stop, c.model_frames] for c in plan_chunks(int(frames), chunk)] != plan
    ]
    note = f"plans of {', '.join(wrong)} frames differ" if wrong else ""
    yield Line("plans", float(len(wrong)), not wrong, note)


def overlap_bounds(
    points: Any, history: Camera, targets: Camera, hw: tuple[int, int], voxel_size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest overlap that rounding at the edges of views can give."""
    cubes = np.floor(np.asarray(points, np.float32) / np.float32(voxel_size))
    _, cube = np.unique(cubes, axis=0, return_inverse=True)
    cube = cube.reshape(-1)

    def seen(view: Camera) -> tuple[np.ndarray, np.ndarray]:
        shifts = [(-_EDGE, -_EDGE), (-_EDGE, _EDGE), (_EDGE, -_EDGE), (_EDGE, _EDGE)]
        rows = []
        for u, v in shifts:
            moved = view.intrinsics + np.array([[0, 0, u], [0, 0, v], [0, 0, 0]])
            rows.append(rows_in_view(points, Camera(view.cam_to_world, moved), hw))
        pair = []
        for row in (np.all(rows, axis=0), np.any(rows, axis=0)):
            pair.append(np.bincount(cube[row], minlength=cube.max() + 1) > 0)
        return pair[0], pair[1]

    wanted = [seen(Camera(*leaves)) for leaves in zip(*targets, strict=True)]
    surely = np.any([pair[0] for pair in wanted], axis=0)
    maybe = np.any([pair[1] for pair in wanted], axis=0)
    low, high = [], []
    for leaves in zip(*history, strict=True):
        least, most = seen(Camera(*leaves))
        low.append((least & surely).sum() / max(1, (most | maybe).sum()))
        high.append((most & maybe).sum() / max(1, (least | surely).sum()))
    return np.asarray(low), np.asarray(high)


def _choice(
    name: str,
    got: tuple[int, ...],
    expected: list[int],
    bounds: tuple[np.ndarray, np.ndarray],
    config: ReferenceConfig,
) -> Line:
    """Compare chosen references; accept what rounding at edges can have chosen."""
    if list(got) == list(expected):
        return Line(name, 0.0, True)
    note = f"ours {list(got)}, the release's {list(expected)}"
    low, high = bounds
    left = set(range(len(low)))
    possible = len(expected) <= config.most
    for frame in expected:
        left.discard(frame)
        best_other = max((low[i] for i in left), default=0.0)
        possible &= high[frame] >= max(best_other, config.threshold)
    if len(expected) < config.most:
        possible &= all(low[i] < config.threshold for i in left)
    note += ": a matter of rounding" if possible else ""
    return Line(name, float(not possible), bool(possible), note)


def _whole_rollout(directory: Path) -> Iterator[Line]:
    case = _Case(directory)
    latents = None
    for i, result in enumerate(case.results()):
        latents = result.state.latents
        new = latents[:, -case.stored[f"latents{i}"].shape[0] :]
        expected = np.moveaxis(case.stored[f"latents{i}"], 1, -1)[None]
        yield within(f"latents{i}", relative_error(new, expected), LATENT_LIMIT)
        expected = int(case.stored[f"points{i}"])
        note = f"{int(result.rows[0])} rows, the release {expected}"
        error = abs(int(result.rows[0]) - expected) / max(1, expected)
        yield Line(f"rows{i}", error, error == 0, note * (error > 0))
    yield from case.choices
    frames = decode_latents(case.world, latents)[0, ::8].astype(float)
    expected = case.stored["video_every8"].astype(float)
    error = np.mean((frames - expected) ** 2, axis=(1, 2, 3)).max()
    decibels = 10 * np.log10(255**2 / max(error, 1e-12))
    error = relative_error(frames, expected)
    yield Line("frames", error, bool(decibels >= FRAME_DECIBELS), f"{min(decibels, 99):.1f} dB")


class _Case:
    """A stored rollout: the world, its inputs, and what the release chose."""

    def __init__(self, directory: Path) -> None:
        self.given, self.stored = sizes(directory, "rollout.json"), arrays(directory, "rollout.npz")
        self.config, self.chunks = self.given["config"], self.given["iterations"]
        clip, begin = arrays(directory, "geometry.npz"), self.config["start_frame"]
        frames = slice(begin, begin + self.config["num_frames"])
        self.clip = {name: values[frames] for name, values in clip.items()}
        self.depth = self.clip["depths"].astype(np.float32)
        self.cameras = Camera(self.clip["poses_c2w"], self.clip["intrinsics"])
        self.world = self._world(directory)
        self.choices: list[Line] = []

    def _world(self, directory: Path) -> World:
        config = self.config
        (codec, codec_params), (model, params) = autoencoder(directory), denoiser(directory)
        stride = codec.temporal_stride
        longest = max(chunk["model_frames"] for chunk in self.chunks)
        height, width = self.given["height"], self.given["width"]
        cells = height * width // codec.spatial_stride**2
        spec = WorldSpec(
            name="golden",
            height=height,
            width=width,
            codec=codec,
            depth_head=None,
            denoiser=model,
            memory=release_config(cells * (2 + config["num_frames"]), codec.latent_channels),
            condition=dataclasses.replace(RELEASE, score=codec.latent_channels),
            chunk=release_chunk(
                latent_frames=1 + (longest - 1) // stride,
                preceding=-(-config["preceding_pixel_frames"] // stride),
                temporal_stride=stride,
                references=ReferenceConfig(
                    config["max_reference_frames"],
                    config["ref_iou_voxel_size"],
                    config["ref_iou_threshold"],
                ),
            ),
            sampling=SamplingConfig(
                steps=config["infer_steps"],
                shift=config["timestep_shift"],
                guidance=1.0 if config["no_cfg"] else config["guidance_scale"],
                integer_timesteps=True,
            ),
        )
        return World(spec, {"codec": codec_params, "denoiser": params})

    def results(self) -> Iterator[ChunkResult]:
        """Run the rollout with the release's noise, depth and, where edges decide, references."""
        start_keep, keep = self._masks()
        start = Start(self.clip["frames"][:1], self.depth[:1], start_keep[None])
        providers = Providers(
            depth=path_depth(self.world.spec, self.depth[None], keep[None]),
            noise=lambda chunk, shape: channel_last(self.stored[f"noise{chunk.index}"]),
            references=self._references,
        )
        cameras = Camera(*(np.asarray(leaf, np.float32)[None] for leaf in self.cameras))
        run = rollout(
            self.world,
            start,
            cameras,
            RolloutConfig(seed=0),
            providers=providers,
            prompt=Prompt(self.stored["context"], self.stored.get("negative_context", [None])[0]),
        )
        for self.result in run:
            yield self.result

    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of the start picture and of later frames that the stored sizes imply.

        The files do not say whether the release was given them; its memory's size does.
        """
        spec, masks = self.world.spec, self.clip.get("masks", np.ones(self.depth.shape, bool))
        everything = np.ones_like(masks)
        written = np.arange(0, self.chunks[0]["model_frames"], spec.chunk.temporal_stride)
        known = resize_depth(self.depth, spec.grid_hw) > 0
        for start, later in ((masks, everything), (everything, everything), (masks, masks)):
            rows = [
                known[frames] & resize_mask(keep[frames], spec.grid_hw)
                for frames, keep in ((0, start), (written, later))
            ]
            if sum(part.sum() for part in rows) == self.stored["points0"]:
                return start[0], later
        return masks[0], everything

    def _references(self, chunk: PlannedChunk, chosen: References) -> References:
        """Note how the choice compares with the release's, and go on with the latter."""
        spec, memory = self.world.spec, self.result.state.memory
        listed = self.chunks[chunk.index]
        stride = spec.chunk.temporal_stride
        count = chunk.first_latent + 1

        def views(frames: Any) -> Camera:
            picked = Camera(*(leaf[np.asarray(frames, int)] for leaf in self.cameras))
            return grid_camera(picked, spec.frame_hw, spec.grid_hw)

        config = spec.chunk.references
        bounds = overlap_bounds(
            positions_in_order(jax.tree.map(lambda leaf: leaf[0], memory)),
            views(np.arange(count) * stride),
            views(listed["target_pose_indices"]),
            spec.grid_hw,
            config.voxel_size,
        )
        expected = tuple(listed["reference_indices"])
        name = f"references{chunk.index}"
        self.choices.append(_choice(name, chosen[0], expected, bounds, config))
        return (expected,)
