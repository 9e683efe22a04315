"""Moving things: what the filter of a write keeps out, and what ghosts cost later reads.

`python -m benchmarks.moving_things` records Doom levels of the validation split twice, with
monsters that move and without (the exact clean plate), and writes the first into memories that are
filtered in different ways. It prints, over margins of the test, the share of moving cells kept out
and of static cells kept, of what a memory that true masks keep clean does not show yet; then, for
the shipped world, the PSNR against the clean plate of what memories show afterwards, where a ghost
stands in the unfiltered one and over the whole view. The last line is one JSON object; `sheet.png`
shows the clips. Recordings are kept in `--out`.

Read next: `mirage_jax/memory/moved.py`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mirage_jax import world_model
from mirage_jax.data.doom import levels, pairs
from mirage_jax.data.doom.engine import Engine
from mirage_jax.data.doom.record import RecordConfig, Rejected
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import moved, read, state, write
from mirage_jax.memory.unseen import unseen
from mirage_jax.rollout.shipped import DEFAULT_WORLD
from mirage_jax.rollout.world import World, load_world

MARGINS = (0.05, 0.1, 0.2, 0.3, 0.5)
FRAMES = 49
CHUNK = 9  # latent frames of one write, as in a rollout with its first frame


class Pair(NamedTuple):
    """One clip on the latent grid: t latent frames."""

    latents: np.ndarray
    depth: np.ndarray
    moving: np.ndarray  # most of the cell's pixels
    sprite: np.ndarray  # some of them
    camera: Camera
    plate: np.ndarray  # [f, H, W, 3] in [-1, 1]
    plate_depth: np.ndarray
    rgb: np.ndarray


def record(count: int, folder: Path) -> list[tuple[dict, dict]]:
    """Record pairs, or take those that were recorded before."""
    found: list[tuple[dict, dict]] = []
    folder.mkdir(parents=True, exist_ok=True)
    with Engine(pairs.WITH) as monsters, Engine(pairs.WITHOUT) as empty:
        for seed in range(10**6):
            for level in levels.levels_of("val"):
                for kind in ("look_around", "out_and_back"):
                    path = folder / f"{level.name}_{kind}_{seed}.npz"
                    pair = _cached(path, (monsters, empty), level, seed, kind)
                    if pair:
                        found.append(pair)
                        print(f"clip {len(found)} of {count}: {path.stem}", flush=True)
                    if len(found) == count:
                        return found
    return found


def _cached(path: Path, engines: Any, level: Any, seed: int, kind: str) -> Any:
    names = ("rgb", "depth", "moving", "sprite", "cam_to_world", "intrinsics")
    if not path.exists():
        try:
            config = RecordConfig(frames=FRAMES)
            clips = pairs.record_pair(engines, level, seed, config, kind=kind)
        except Rejected:
            clips = ()
        arrays = {f"{i}_{n}": clip[n] for i, clip in enumerate(clips) for n in names}
        np.savez_compressed(path, **arrays)
    with np.load(path) as file:
        if not file.files:
            return None
        return tuple({name: file[f"{i}_{name}"] for name in names} for i in range(2))


def to_grid(world: World, clip: dict, plate: dict) -> Pair:
    """Encode a clip and bring its depth and masks to the latent grid."""
    spec, stride = world.spec, world.spec.chunk.temporal_stride
    video = jnp.asarray(clip["rgb"][None], jnp.float32) / 127.5 - 1.0
    latents = jax.jit(lambda v: world_model.encode(spec, world.params, v))(video)[0]
    depth, _ = world_model.grid_depth(
        clip["depth"][::stride], np.ones(clip["depth"][::stride].shape, bool), spec.grid_hw
    )
    plate_depth, _ = world_model.grid_depth(
        plate["depth"][::stride], np.ones(plate["depth"][::stride].shape, bool), spec.grid_hw
    )
    (rows, columns), (height, width) = spec.grid_hw, clip["depth"].shape[1:]
    cells = (-1, rows, height // rows, columns, width // columns)
    count = len(depth)
    intrinsics = np.broadcast_to(clip["intrinsics"], (count, 3, 3)).astype(np.float32)
    camera = Camera(clip["cam_to_world"][::stride].astype(np.float32), intrinsics)
    return Pair(
        latents=np.asarray(latents),
        depth=np.asarray(depth, np.float32),
        moving=clip["moving"][::stride].reshape(cells).mean((2, 4)) > 0.5,
        sprite=clip["sprite"][::stride].reshape(cells).any((2, 4)),
        camera=world_model.grid_camera(camera, spec.frame_hw, spec.grid_hw),
        plate=plate["rgb"].astype(np.float32) / 127.5 - 1.0,
        plate_depth=np.asarray(plate_depth, np.float32),
        rgb=clip["rgb"],
    )


class Filters:
    """The tests of `moved.py` one by one, on memories that are kept clean of moving things."""

    def __init__(self, config: state.MemoryConfig) -> None:
        self._config = dataclasses.replace(config, moved_margin=0.0)
        self._between = jax.jit(moved.moved_between, static_argnums=2)
        self._since = jax.jit(moved.moved_since, static_argnums=3)
        self._read = jax.jit(read.read, static_argnums=(2, 3))
        self._unseen = jax.jit(unseen, static_argnums=2)
        self._write = jax.jit(write.write_frames, static_argnums=5)

    def run(self, pair: Pair) -> dict[str, np.ndarray]:
        """Return what each test drops [t, h, w], the candidate cells, and token distances."""
        memory, hw = state.empty(self._config), pair.depth.shape[1:]
        dropped: dict[str, list] = {}
        for start in range(0, len(pair.depth), CHUNK - 1):
            chunk = slice(start, start + CHUNK)
            part = jax.tree.map(lambda x, c=chunk: x[c], (pair.depth, pair.camera))
            for margin in MARGINS:
                for views in (1, 2):
                    rules = dataclasses.replace(
                        self._config, moved_margin=margin, moved_views=views
                    )
                    mask = self._between(*part, rules)
                    new = slice(0 if start == 0 else 1, None)
                    dropped.setdefault(f"between {views} {margin}", []).extend(mask[new])
        for t in range(len(pair.depth)):
            frame = jax.tree.map(
                lambda x, t=t: x[t : t + 1],
                (pair.latents, pair.depth, ~pair.moving, pair.camera),
            )
            latents, depth, keep, camera = frame
            found = self._read(memory, camera, hw, self._config)
            for margin in MARGINS:
                rules = dataclasses.replace(self._config, moved_margin=margin)
                mask = self._since(found, depth, camera, rules)[0]
                dropped.setdefault(f"since {margin}", []).append(mask)
                nearer = found.visibility & (found.depth > depth * (1 + margin))
                dropped.setdefault(f"nearer {margin}", []).append(nearer[0])
            fresh = np.asarray(self._unseen(found, depth, self._config))[0]
            dropped.setdefault("candidate", []).append(fresh)
            distance = np.sqrt(np.mean(np.square(found.tokens - latents), axis=-1))
            distance = np.where(found.visibility, distance, -1.0)[0]
            dropped.setdefault("token distance", []).append(distance)
            memory, _ = self._write(memory, latents, depth, keep, camera, self._config, t)
        return {name: np.stack([np.asarray(x) for x in masks]) for name, masks in dropped.items()}


def rates(pairs_: list[Pair], results: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return recall of moving cells and share of static cells kept, for every test."""
    moving = np.concatenate(
        [p.moving[r["candidate"]] for p, r in zip(pairs_, results, strict=True)]
    )
    static = np.concatenate(
        [~p.sprite[r["candidate"]] for p, r in zip(pairs_, results, strict=True)]
    )

    def both(test: str, mask: np.ndarray) -> dict[str, Any]:
        return {
            "test": test,
            "recall": round(float(mask[moving].mean()), 3),
            "kept": round(float(1 - mask[static].mean()), 4),
        }

    def masks(name: str) -> np.ndarray:
        return np.concatenate([r[name][r["candidate"]] for r in results])

    table = []
    for margin in MARGINS:
        table += [both(f"nearer than memory, margin {margin}", masks(f"nearer {margin}"))]
        since = masks(f"since {margin}")
        table += [both(f"memory seen through, margin {margin}", since)]
        for views in (1, 2):
            between = masks(f"between {views} {margin}")
            table += [both(f"{views} frames through, margin {margin}", between)]
            table += [both(f"either, {views} frames, margin {margin}", between | since)]
    distance = masks("token distance")
    for kept in (0.99, 0.95):
        limit = np.quantile(distance[static], kept)
        table += [both(f"token farther than {limit:.2f}", distance > limit)]
    return table


def remember(world: World, pair: Pair, how: str) -> Any:
    """Write a clip chunk by chunk into a memory that is filtered as stated."""
    config = world.spec.memory
    if how in ("nothing", "truth"):
        config = dataclasses.replace(config, moved_margin=0.0)
    writing = jax.jit(write.write_frames, static_argnums=5)
    memory, count = state.empty(config), 0
    for start in range(0, len(pair.depth), CHUNK - 1):
        keep = ~pair.moving if how == "truth" else np.ones_like(pair.moving)
        keep[start + CHUNK :] = False
        if start:
            keep[start] = False
        chunk = slice(start, start + CHUNK)
        part = jax.tree.map(lambda x, c=chunk: x[c], (pair.latents, pair.depth, keep, pair.camera))
        memory, report = writing(memory, *part, config, start)
        count += int(report.moved)
    return memory, count


def shown(world: World, memory: Any, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoded read of a clip's cameras [f, H, W, 3] and the read's depth [t, h, w]."""
    spec = world.spec

    @jax.jit
    def look(memory, camera):
        batch = jax.tree.map(lambda x: x[None], (memory, camera))
        reference = jax.tree.map(lambda x: x[None, 0], camera)
        seen = world_model.observe(spec, world.params, *batch, spec.grid_hw, reference)
        return world_model.decode(spec, world.params, seen.base)[0], seen.read.depth[0]

    video, depth = look(memory, camera)
    return np.clip(np.asarray(video), -1, 1), np.asarray(depth)


def ghosts(world: World, pair: Pair) -> dict[str, Any]:
    """Score what memories show to the clip's cameras against the clean plate."""
    stride = world.spec.chunk.temporal_stride
    looks, counts = {}, {}
    for how in ("nothing", "filter", "truth"):
        memory, counts[how] = remember(world, pair, how)
        looks[how] = shown(world, memory, pair.camera)
    stands = looks["nothing"][1] < 0.8 * pair.plate_depth
    stands &= (looks["nothing"][1] > 0) & (looks["truth"][1] >= 0.9 * pair.plate_depth)
    size = pair.plate.shape[1] // stands.shape[1], pair.plate.shape[2] // stands.shape[2]
    mask = np.kron(stands, np.ones((1, *size), bool))
    result: dict[str, Any] = {"ghost_pixels": int(mask.sum()), "moved": counts["filter"]}
    for how, (video, _) in looks.items():
        error = np.square((video - pair.plate) / 2)[::stride].mean(-1)
        result[how] = {"all": float(error.mean()), "ghost": float((error * mask).sum())}
    result["pictures"] = [pair.rgb, *(((looks[h][0] + 1) * 127.5).astype(np.uint8) for h in looks)]
    result["pictures"].append(((pair.plate + 1) * 127.5).astype(np.uint8))
    return result


def summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return PSNR over all clips, of pixels where a ghost stands and of all."""
    pixels = sum(score["ghost_pixels"] for score in scores)
    result: dict[str, Any] = {"ghost_pixels": pixels}
    for how in ("nothing", "filter", "truth"):
        whole = np.mean([score[how]["all"] for score in scores])
        ghost = sum(score[how]["ghost"] for score in scores) / max(pixels, 1)
        result[how] = {
            "psnr_ghost": round(float(-10 * np.log10(max(ghost, 1e-12))), 2),
            "psnr_all": round(float(-10 * np.log10(whole)), 2),
        }
    return result


def sheet(scores: list[dict[str, Any]], path: Path) -> None:
    """Draw for each clip: frame, reads unfiltered, filtered and by truth, clean plate."""
    rows = []
    for score in scores:
        apart = np.abs(score["pictures"][1].astype(int) - score["pictures"][3]).sum((1, 2, 3))
        frame = int(apart.argmax())
        rows.append(np.concatenate([video[frame] for video in score["pictures"]], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    """Record, test, score and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving_things", description=__doc__)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("outputs/moving_things"))
    options = parser.parse_args()
    world = load_world(DEFAULT_WORLD)
    clips = record(options.clips, options.out / "clips")
    grids = [to_grid(world, *clip) for clip in clips]
    filters = Filters(world.spec.memory)
    table = rates(grids, [filters.run(pair) for pair in grids])
    for row in table:
        print(
            f"{row['test']:38} moving kept out {row['recall']:.3f}  static kept {row['kept']:.4f}"
        )
    scores = [ghosts(world, pair) for pair in grids]
    sheet(scores, options.out / "sheet.png")
    result = {"clips": len(grids), "tests": table, "later_reads": summary(scores)}
    print(json.dumps(result["later_reads"]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
