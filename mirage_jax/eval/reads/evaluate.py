"""How faithful a read of the memory is: every way to read, beside a memory of pixels and the codec.

One frame of a recorded clip is written with true depth and without what moves, read at the camera
of a later frame, decoded and compared with what the recording shows there. Both are taken as a
camera at rest sees them (three equal frames of latents, the last decoded frame counts), as rollout
stores its start picture; so nothing but the read stands between a row and the codec's ceiling.

* `psnr`, `ssim`, `gradient`: on the cells that the written frame saw (`pairs.seen_cells`),
  the same for every row. `gradient` is its mean length over the true one's; blur is below 1.
* `psnr_hit`: on those of them where the nearest read found a row. `psnr_frame`: the whole frame.
* `coverage`: share of the seen cells that the row read something for.
* `lpips_alex` or `lpips_vgg`: whole frames, where weights are given (`--lpips` of the command).
* `copy`: the written frame itself.

Figures are means over pairs of a clip, then over clips, with 95 % bootstrap intervals over clips.
They are the same on every run; milliseconds are not.
Read next: `rows.py`, `report.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from skimage.metrics import structural_similarity

from mirage_jax.eval import image
from mirage_jax.eval.metrics.lpips import Lpips
from mirage_jax.eval.reads import report
from mirage_jax.eval.reads.pairs import (
    GAPS,
    ReadPair,
    SeenCells,
    frame_camera,
    pairs_for,
    seen_cells,
)
from mirage_jax.eval.reads.rows import ROWS, Pieces, Row, Shown, decode_at_rest, write_pieces
from mirage_jax.rollout.decode import to_uint8
from mirage_jax.rollout.world import World, WorldSpec

COPY = "copy"
# Groups of cells: by how much larger the surface appears now, and by the angle it has turned.
ZOOM_EDGES = (0.5, 0.7, 0.9, 1.1, 1.4, 2.0)
ANGLE_EDGES = (2.0, 5.0, 10.0, 20.0)
# A group of fewer cells than this says nothing of a pair.
_FEWEST_CELLS = 4
# A quick evaluation takes one pair of every third clip.
_QUICK_CLIPS = 3
_GRAY = np.asarray([0.299, 0.587, 0.114], np.float32)

# row -> metric -> (clip, value) of each pair.
Scores = dict[str, dict[str, list[tuple[int, float]]]]


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """Size of a read evaluation.

    Attributes:
        quick: one pair of every third clip.
        gaps: video frames between the written frame and the later one.
        rows: names of `ROWS`; None takes all that the world has.
    """

    quick: bool = False
    gaps: tuple[int, ...] = GAPS
    rows: tuple[str, ...] | None = None


def evaluate_read(
    world: World,
    clips: Sequence[Any],
    config: ReadConfig,
    directory: Path,
    say: Callable[[str], None] = lambda line: None,
    distance: Lpips | None = None,
) -> dict[str, Any]:
    """Run the evaluation and write read.json, read.md and read.png.

    Args:
        world: what is measured.
        clips: random access to the clips of a split.
        config: size.
        directory: where reports go.
        say: receives progress lines.
        distance: perceptual distance of pictures; None leaves it out.

    Returns:
        What read.json holds: `gap8` -> row -> metric, and so on.

    Raises:
        ValueError: no pair of frames of these clips shares enough, or a row does not exist.
    """
    began = time.perf_counter()
    pairs, fixed = _take_pairs(clips, config)
    measure = _Measure(world, rows_of(world.spec, config.rows), distance)
    for gap, chosen in pairs.items():
        for number, pair in enumerate(chosen):
            measure.add(gap, pair, clips, shown=number == len(chosen) // 2)
        say(f"read gap={gap} pairs={len(chosen)} seconds={time.perf_counter() - began:.0f}")
    results = report.results(measure, pairs, fixed, config)
    results["seconds"] = time.perf_counter() - began
    report.write(directory, world.spec.name, results, measure)
    return results


def rows_of(spec: WorldSpec, names: Sequence[str] | None = None) -> dict[str, Row]:
    """Return the rows that a world has, or the named ones.

    Raises:
        ValueError: a name that is no row of this world.
    """
    fitting = {name: row for name, row in ROWS.items() if row.fits(spec)}
    unknown = [name for name in names or () if name not in fitting]
    if unknown:
        raise ValueError(
            f"rows: got {unknown}, expected some of {list(fitting)}, which world {spec.name} has"
        )
    return {name: fitting[name] for name in fitting if names is None or name in names}


class _Measure:
    """Runs the rows on pairs and keeps their scores."""

    def __init__(self, world: World, rows: Mapping[str, Row], distance: Lpips | None) -> None:
        self.rows, self.distance = rows, distance
        self.by_gap: dict[int, Scores] = {}
        self.by_zoom: dict[str, Scores] = {}
        self.by_angle: dict[str, Scores] = {}
        self.milliseconds: dict[str, list[float]] = {name: [] for name in rows}
        self.bytes: dict[str, list[int]] = {}
        self.seen_share: dict[int, list[float]] = {}
        self.panels: list[dict[str, np.ndarray]] = []
        self._spec, self._params = world.spec, world.params
        self._write = _compiled(write_pieces, world.spec)
        self._decode = _compiled(decode_at_rest, world.spec)
        self._show = {name: _compiled(row.show, world.spec) for name, row in rows.items()}
        self._ran: set[str] = set()

    def add(self, gap: int, pair: ReadPair, clips: Sequence[Any], shown: bool) -> None:
        """Score every row on one pair; `shown` keeps its pictures for the sheet."""
        clip = clips[pair.clip]
        seen = seen_cells(clip, pair.source, pair.target, self._spec.grid_hw)
        truth, source = (np.asarray(clip["rgb"][i]) for i in (pair.target, pair.source))
        pieces = self._pieces(clip, pair, truth)
        found = {name: self._timed(name, pieces) for name in self.rows}
        nearest = found.get("nearest", next(iter(found.values())))
        hit = seen.seen & np.asarray(nearest.covered)
        pictures = {
            name: to_uint8(self._decode(self._params, shown.tokens))
            for name, shown in found.items()
        } | {COPY: source}
        table = self.by_gap.setdefault(gap, {})
        distances = self._distances(pictures, truth)
        for name, picture in pictures.items():
            covered = np.asarray(found[name].covered) if name in found else np.ones_like(seen.seen)
            scores = score_picture(picture, truth, seen.seen, hit)
            scores["coverage"] = float(covered[seen.seen].mean()) if seen.seen.any() else np.nan
            for metric, value in (scores | distances.get(name, {})).items():
                _put(table, name, metric, pair.clip, value)
            self._group(name, pair.clip, picture, truth, seen)
        self.seen_share.setdefault(gap, []).append(float(seen.seen.mean()))
        self._count_bytes(pieces, source)
        if shown:
            self.panels.append({"target": truth, **pictures})

    def _pieces(self, clip: Mapping[str, Any], pair: ReadPair, truth: np.ndarray) -> Pieces:
        depth = np.asarray(clip["depth"][pair.source], np.float32)
        keep = ~np.asarray(clip["moving"][pair.source], bool)
        cameras = (frame_camera(clip, i) for i in (pair.source, pair.target))
        colors = (np.asarray(clip["rgb"][pair.source]), truth)
        first, target = (np.asarray(c, np.float32) / 127.5 - 1.0 for c in colors)
        pieces = self._write(self._params, first, depth, keep, *cameras)
        # Writing must be over before reading is timed.
        return jax.block_until_ready(pieces._replace(target=jax.numpy.asarray(target)))

    def _timed(self, name: str, pieces: Pieces) -> Shown:
        """Run a row; what compiling takes is not counted."""
        show = self._show[name]
        if name not in self._ran:
            self._ran.add(name)
            jax.block_until_ready(show(self._params, pieces))
        began = time.perf_counter()
        shown = jax.block_until_ready(show(self._params, pieces))
        self.milliseconds[name].append(1e3 * (time.perf_counter() - began))
        return shown

    def _distances(
        self, pictures: Mapping[str, np.ndarray], truth: np.ndarray
    ) -> dict[str, dict[str, float]]:
        """Return the perceptual distance of each row's picture, where there are weights."""
        if self.distance is None:
            return {}
        values = self.distance(np.stack(list(pictures.values())), np.stack([truth] * len(pictures)))
        key = self.distance.name
        return {name: {key: float(v)} for name, v in zip(pictures, values, strict=True)}

    def _group(self, name: str, clip: int, picture: Any, truth: Any, seen: SeenCells) -> None:
        """Score the cells of each zoom and of each angle alone."""
        zoom, angle = np.exp(seen.zoom), np.degrees(seen.angle)
        for values, edges, tables in (
            (zoom, ZOOM_EDGES, self.by_zoom),
            (angle, ANGLE_EDGES, self.by_angle),
        ):
            groups = np.digitize(values, edges)
            for group, words in enumerate(group_names(edges)):
                cells = seen.seen & (groups == group)
                if cells.sum() >= _FEWEST_CELLS:
                    value = image.masked_psnr(picture, truth, _pixels(cells, truth))
                    _put(tables.setdefault(words, {}), name, "psnr", clip, value)

    def _count_bytes(self, pieces: Pieces, source: np.ndarray) -> None:
        for name, row in self.rows.items():
            if row.size is not None:
                self.bytes.setdefault(name, []).append(row.size(self._spec, pieces))
        self.bytes.setdefault(COPY, []).append(source.nbytes)


def score_picture(
    picture: UInt8[np.ndarray, "H W 3"],
    truth: UInt8[np.ndarray, "H W 3"],
    seen: np.ndarray,
    hit: np.ndarray,
) -> dict[str, float]:
    """Score one decoded picture on whole cells [h, w]; see the module docstring."""
    mask = _pixels(seen, truth)
    scores = {
        "psnr": image.masked_psnr(picture, truth, mask),
        "psnr_hit": image.masked_psnr(picture, truth, _pixels(hit, truth)),
        "psnr_frame": float(image.psnr(picture[None], truth[None])[0]),
        "ssim": float("nan"),
        "gradient": float("nan"),
    }
    if mask.any():
        _, similar = structural_similarity(
            picture,
            truth,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        scores["ssim"] = float(similar[mask].mean())
        true = _gradient(truth)[mask].mean()
        scores["gradient"] = float(_gradient(picture)[mask].mean() / max(true, 1e-6))
    return scores


def group_names(edges: Sequence[float]) -> list[str]:
    """Return how the groups between edges are called, the open ones at both ends included."""
    inner = [f"{low:g} to {high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def _take_pairs(clips: Sequence[Any], config: ReadConfig) -> tuple[dict[int, list[ReadPair]], bool]:
    """Return the pairs of each gap, and True where they come from the fixed list."""
    pairs, fixed = pairs_for(clips)
    pairs = {gap: pairs[gap] for gap in config.gaps if pairs.get(gap)}
    if config.quick:
        for gap, chosen in pairs.items():
            firsts = {pair.clip: pair for pair in reversed(chosen)}
            pairs[gap] = [firsts[clip] for clip in sorted(firsts)][::_QUICK_CLIPS]
    if not pairs:
        raise ValueError(
            f"--data: got {len(clips)} clips without a pair of frames {config.gaps} apart that "
            "share a quarter of their pixels, expected some; record longer clips"
        )
    return pairs, fixed


@functools.lru_cache(maxsize=32)
def _compiled(function: Callable[..., Any], spec: WorldSpec) -> Callable[..., Any]:
    """Return a function of a world's configs, jitted for one world."""
    return jax.jit(functools.partial(function, spec))


def _put(table: Scores, row: str, metric: str, clip: int, value: float) -> None:
    table.setdefault(row, {}).setdefault(metric, []).append((clip, value))


def _pixels(cells: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return the pixels [H, W] of the cells that are True."""
    rows, columns = (n // m for n, m in zip(picture.shape[:2], cells.shape, strict=True))
    return cells.repeat(rows, axis=0).repeat(columns, axis=1)


def _gradient(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Return the length of the gradient of brightness, per pixel."""
    down, right = np.gradient(picture.astype(np.float32) @ _GRAY)
    return np.hypot(down, right)
