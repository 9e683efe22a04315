"""The rules a memory is kept and read by: one frozen dataclass, checked when it is made.

Conventions: lengths are in scene units. Nothing here imports JAX.

Read next: `state.py` (the tables that follow from these numbers).
"""

import dataclasses
from typing import Literal

# A directory entry holds a row's number in 24 bits; see `directory.py`.
MOST_PARTITION_ROWS = 2**24 - 1


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """How a memory is kept and read. Defaults are the paper's conventions.

    Attributes:
        capacity: Rows the memory can hold.
        channels: Latent channels c of a token.
        retention: "append" keeps every row. The others keep one row in each voxel: the "newest";
            the one seen from the smallest depth ("closest_view"); or the newest with the "mean" of
            all tokens that fell into the voxel.
        voxel_size: Side of a voxel. "append" sorts by voxels but never merges.
        when_full: What happens to new voxels when there is no room: "stop" drops them; "oldest"
            gives up the pages whose newest row is oldest; "farthest" the pages farthest from
            where the cameras of the write are. Dropped and evicted rows are counted.
        partitions: Shares of space with tables of their own, which devices divide among themselves.
            Results depend on it (each share has its own room), but never on the number of devices.
        page_rows: Most rows of a page, the unit of culling; see `page_size`. Kernels for TPUs take
            multiples of 128, those for GPUs of 64.
        token_dtype: Type tokens are stored in.
        half_cell: True: a token sits at its cell's centre (i + 0.5). False: at the cell's index i.
        rounding: How a projection picks its cell: "floor" belongs to half_cell=True,
            "nearest_even" to half_cell=False.
        axes: Rows keep how their cell lay in the world (12 bytes a row), so that its patch can be
            put where another camera sees it; see `axes.py`.
        select: Which row a cell shows: the "nearest", or among those at the nearest's depth the
            one seen from the most similar view ("best_view").
        shell: Rows within this relative depth of another count as the same surface.
        same_place: "best_view" lets a row pass without the shell test if it was seen from within
            this fraction of its depth of the reading camera: nothing can hide it from there.
        offset_weight: What a shift of one cell adds to the difference of two views, in radians.
        close_holes: A read gives cells without a row the mean of their neighbours where these lie
            on one surface (within `shell`); see `fill.close_holes`.
        edge_window: Side in cells of the window in which depth must be continuous for a cell to be
            written; odd, 0 switches the test off.
        edge_range: Largest relative depth range accepted in that window.
        moved_margin: A cell that stands nearer, by this relative depth, than what another view saw
            behind its place has moved and is not written; 0 switches the test off. See `moved.py`.
        moved_views: Frames of the same write that must have looked through a cell's place.
        write_where: "all" writes every kept cell; "unseen" those the memory does not show already.
        seen_by: What a row must agree with for its cell to be seen, within `shell`: the depth at
            the cell's "center", or any depth of the cell's "extent", see `unseen.py`. With the
            latter a second visit adds next to nothing.
    """

    capacity: int
    channels: int
    retention: Literal["append", "newest", "closest_view", "mean"] = "append"
    voxel_size: float = 0.1
    when_full: Literal["stop", "oldest", "farthest"] = "stop"
    partitions: int = 1
    page_rows: int = 256
    token_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    half_cell: bool = True
    rounding: Literal["floor", "nearest_even"] = "floor"
    axes: bool = False
    select: Literal["nearest", "best_view"] = "nearest"
    shell: float = 0.05
    same_place: float = 0.01
    offset_weight: float = 0.05
    close_holes: bool = False
    edge_window: int = 0
    edge_range: float = 0.1
    moved_margin: float = 0.2
    moved_views: int = 1
    write_where: Literal["all", "unseen"] = "all"
    seen_by: Literal["center", "extent"] = "center"

    def __post_init__(self) -> None:
        """Check each field and the facts that tie fields together."""
        for name in ("capacity", "channels", "partitions", "moved_views"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.voxel_size > 0, "voxel_size", self.voxel_size, "a positive length")
        whole = self.page_rows >= 8 and self.page_rows % 8 == 0
        _require(whole, "page_rows", self.page_rows, "a positive multiple of 8")
        for name in ("shell", "same_place", "offset_weight", "edge_range", "moved_margin"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        odd = self.edge_window == 0 or (self.edge_window > 0 and self.edge_window % 2 == 1)
        _require(odd, "edge_window", self.edge_window, "0 (off) or an odd number of cells")
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), f"one of {choices}")
        expected = "floor" if self.half_cell else "nearest_even"
        _require(
            self.rounding == expected,
            "rounding",
            self.rounding,
            f"'{expected}' with half_cell={self.half_cell}, or reads shift by half a cell",
        )
        _require(
            not self.merges or self.rows <= MOST_PARTITION_ROWS,
            "capacity",
            self.capacity,
            f"at most {MOST_PARTITION_ROWS} rows a partition where rows merge (more partitions)",
        )

    @property
    def merges(self) -> bool:
        """Whether a voxel holds one row."""
        return self.retention != "append"

    @property
    def room(self) -> int:
        """Rows a partition may hold; whole pages where pages are given up when full."""
        share = -(-self.capacity // self.partitions)
        return share if self.when_full == "stop" else -(-share // self.page_size) * self.page_size

    @property
    def page_size(self) -> int:
        """Rows of a page: `page_rows`, or less where a partition would have under eight pages.

        Then a multiple of 128, which is what the kernels take.
        """
        share = -(-self.capacity // self.partitions)
        eighth = -(-share // 8)
        return min(self.page_rows, -(-eighth // 128) * 128)

    @property
    def pages(self) -> int:
        """Pages of a partition; in eights where they are many.

        TPUs keep the lines of a table in eights and would copy others to change them. Where pages
        are given up their number follows from the room: take a capacity in eights of pages.
        """
        pages = -(-self.room // self.page_size)
        return pages if pages <= 16 or self.when_full != "stop" else -(-pages // 8) * 8

    @property
    def rows(self) -> int:
        """Slots for rows of a partition, `pages * page_size`."""
        return self.pages * self.page_size


_CHOICES = {
    "retention": ("append", "newest", "closest_view", "mean"),
    "when_full": ("stop", "oldest", "farthest"),
    "token_dtype": ("float32", "bfloat16", "float16"),
    "rounding": ("floor", "nearest_even"),
    "select": ("nearest", "best_view"),
    "write_where": ("all", "unseen"),
    "seen_by": ("center", "extent"),
}


def _require(condition: bool, name: str, got: object, expected: str) -> None:
    """Raise ValueError for a config field that breaks its rule."""
    if not condition:
        raise ValueError(f"MemoryConfig: {name} is {got!r}, expected {expected}.")


def release_config(capacity: int, channels: int) -> MemoryConfig:
    """Return the conventions that the released weights were trained with."""
    return MemoryConfig(
        capacity, channels, half_cell=False, rounding="nearest_even", moved_margin=0.0
    )
