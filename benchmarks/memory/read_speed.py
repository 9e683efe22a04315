"""One 44x80x48 view, ours and the release's algorithm taking turns; nine views in one call.

Two scenes of n points in view: a full frustum, where near points hide far ones, and one surface,
where nothing is hidden and every point has to be looked at. Beside each time stands the limit:
bytes of positions read once over the copy bandwidth of this machine.

Read next: `agreement.py` (are the pictures the same), `growth.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.memory import agreement, peers, scenes, stored
from mirage_jax.memory.read import read
from mirage_jax.memory.state import MemoryConfig

_SCENES: dict[str, Callable[[int], scenes.Points]] = {
    "volume": scenes.frustum_volume,
    "surface": scenes.single_surface,
}
_VIEWS = 9

read_jit = jax.jit(read, static_argnums=(2, 3))


def measure(counts: tuple[int, ...], rounds: int, quick: bool = False) -> dict[str, Any]:
    """Time both scenes at each number of points in view.

    Args:
        counts: points in view, ascending.
        rounds: timed rounds; the peer takes part in each.
        quick: nine views for the last count only, and without the peer called lean.

    Returns:
        Scene -> count -> figures; see `_measure_scene`.
    """
    bandwidth = timing.copy_bandwidth()
    result: dict[str, Any] = {"copy_gb_s": round(bandwidth / 1e9, 2)}
    print(f"read: 44x80 cells, 48 channels, float32; copy {bandwidth / 1e9:.1f} GB/s")
    for name, make in _SCENES.items():
        for count in counts:
            rules = Rules(rounds, not quick or count == counts[-1], not quick)
            figures = _measure_scene(make(count), stored.config_for(count), bandwidth, rules)
            result[f"{name}_{count:.0e}".replace("e+0", "e")] = figures
            _print_scene(f"{name} {count:,}", figures)
    return result


class Rules(NamedTuple):
    """Timed rounds, and whether nine views and the peer called lean are timed."""

    rounds: int
    nine: bool
    lean: bool


def compile_ahead(count: int, nine: bool) -> None:
    """Compile what `measure` runs, on a memory without rows; `nine` views as well or one alone."""
    camera = scenes.room_camera()
    config = stored.config_for(count)
    memory = stored.filled(np.zeros((0, 3), np.float32), config)
    for views in (camera, scenes.cameras_along(camera, _VIEWS))[: 1 + nine]:
        read_jit(memory, views, scenes.GRID_HW, config)


def _measure_scene(
    points: scenes.Points, config: MemoryConfig, bandwidth: float, rules: Rules
) -> dict[str, Any]:
    count = len(points.positions)
    memory = stored.filled(points.positions, config)
    tokens = scenes.tokens_of(0, count)

    def ours(camera: Any) -> Any:
        return read_jit(memory, camera, scenes.GRID_HW, config)

    peer = peers.make_peers(points.positions, tokens, points.camera)
    if not rules.lean:
        peer.pop("lean", None)
    calls = {"ours": lambda: ours(points.camera), **peer}
    ms = timing.interleave(calls, rules.rounds)
    if rules.nine:
        nine = scenes.cameras_along(points.camera, _VIEWS)
        singles = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], nine) for i in range(_VIEWS)]
        views = {"one call": lambda: ours(nine), "nine calls": lambda: list(map(ours, singles))}
        ms |= timing.interleave(views, rules.rounds)
    fastest = min(ms[name] for name in peer if name != "lean")
    return {
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "limit_ms": round(1e3 * 12 * count / bandwidth, 3),
        "speedup": round(fastest / ms["ours"], 1),
        **_compare(ours(points.camera), next(iter(peer.values()))(), points, tokens),
    }


def _compare(found: Any, peer: tuple, points: scenes.Points, tokens: np.ndarray) -> dict[str, Any]:
    """Compare our read with the peer's on one thread, and with the float64 oracle."""
    view = peers.view_of(points.camera)
    mine = agreement.winners(found.tokens[0], found.visibility[0])
    truth = peers.read_numpy(points.positions, tokens, view, np.float64)
    against = {"peer": agreement.winners(*peer), "oracle": agreement.winners(*truth)}
    return {
        f"cells_unlike_{name}": agreement.compare(mine, other, points.positions, view)._asdict()
        for name, other in against.items()
    }


def _print_scene(title: str, figures: dict[str, Any]) -> None:
    ms = figures["ms"]
    peer = ", ".join(
        f"{name} {ms[name]:.0f}" for name in ms if name not in ("ours", "one call", "nine calls")
    )
    nine = ""
    if "one call" in ms:
        nine = f"nine views {ms['one call']:.2f} in one call, {ms['nine calls']:.2f} in nine; "
    print(
        f"  {title}: {ms['ours']:.2f} ms (limit {figures['limit_ms']:.2f}; release {peer} ms: "
        f"{figures['speedup']:.0f}x); {nine}unlike oracle {figures['cells_unlike_oracle']}, "
        f"peer {figures['cells_unlike_peer']}"
    )
