"""Where vision tokens may meet: windows on their grids, on a square re-reading, or everywhere.

A partition gives every token the number of its block (an image, a tile, a frame) and of its window
in that block.  Tokens outside every window (text, padding, line breaks) are left alone.  It follows
from the layout alone, so it is worked out on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightkv.contract.groups import cells, extents, gather_groups
from lightkv.contract.host import on_host
from lightkv.contract.layout import TokenLayout
from lightkv.errors import InputError

Partition = Literal["true-grid", "square", "square-blocks", "global"]

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """A partition of the tokens of a batch.

    Attributes:
        block: (B, N) int64, number of the grid within the row that holds the token, -1 for none.
        window: (B, N) int64, number of the window on that grid, row by row, -1 for none.
    """

    block: Numbers
    window: Numbers

    def labels(self) -> Numbers:
        """(B, N) int64: a number per batch row, block and window; -1 outside every window."""
        windows, blocks = self.window.max() + 1, self.block.max() + 1
        rows = np.arange(len(self.block))[:, None]
        number = (rows * blocks + self.block) * windows + self.window
        return np.where(self.window >= 0, number, -1)


def part(coordinate: Numbers, side: Numbers, parts: int) -> Numbers:
    """Number of the part that a coordinate lies in; the first ``side mod parts`` are one longer.

    With more parts than coordinates every coordinate is a part of its own.
    """
    length, longer = side // parts, side % parts
    edge = longer * (length + 1)
    beyond = (coordinate - edge) // length.clip(1)
    return np.where(coordinate < edge, coordinate // (length + 1), longer + beyond)


def true_grid(layout: TokenLayout, windows: int) -> Windows:
    """w x w windows on every image's own grid, by the cells of the surviving tokens.

    Frames of a video and tiles of an image are grids of their own. A vision slot without a cell
    of its own (a learned line break) is left alone.
    """
    at, grid = layout.arrays, layout.once(extents)
    inside = cells(layout)
    block = at["segment"] * grid[..., 0].max(initial=0) + at["frame"]
    row = part(at["row"], grid[..., 1], windows)
    col = part(at["col"], grid[..., 2], windows)
    window = row * windows + col
    return Windows(np.where(inside, block, -1), np.where(inside, window, -1))


def square(layout: TokenLayout, windows: int) -> Windows:
    """Each image's tokens re-read, in sequence order, as a square just large enough."""
    return _square_windows(layout.arrays["image"], windows)


def square_blocks(layout: TokenLayout, windows: int) -> Windows:
    """The released code's partition: equal blocks, each re-read as a square.

    A row's vision tokens are strung together and dealt into as many equal blocks as it has
    images. That is :func:`square` unless the images differ in size; then blocks mix images.

    Raises:
        InputError: If the tokens of a row can't be dealt evenly.
    """
    vision, image = on_host(layout.host.vision), layout.arrays["image"]
    images = (image.max(1) + 1).clip(1)
    total = vision.sum(1)
    uneven = np.flatnonzero(total % images)
    if len(uneven):
        row = uneven[0]
        raise InputError(
            f"row {row} of the batch holds {total[row]} vision tokens of {images[row]} "
            "images; the released partition deals them into equal blocks"
        )
    rank = vision.cumsum(1) - 1
    size = (total // images).clip(1)
    return _square_windows(np.where(vision, rank // size[:, None], -1), windows)


def everywhere(layout: TokenLayout, windows: int = 1) -> Windows:
    """One window over all vision tokens of a row, whatever ``windows`` says."""
    window = np.where(on_host(layout.host.vision), 0, -1)
    return Windows(window, window)


def partition(kind: Partition, layout: TokenLayout, windows: int) -> Windows:
    """The partition of that kind with ``windows`` windows per side."""
    make = {
        "true-grid": true_grid,
        "square": square,
        "square-blocks": square_blocks,
        "global": everywhere,
    }[kind]
    return make(layout, windows)


def square_side(count: Numbers) -> Numbers:
    """Side of the smallest square with at least ``count`` cells."""
    least = count.clip(1)
    root = np.ceil(np.sqrt(least)).astype(np.int64)
    side: Numbers = np.where((root - 1) ** 2 >= least, root - 1, root)
    return side


def _square_windows(block: Numbers, windows: int) -> Windows:
    """Windows on the square re-reading of blocks (B, N), -1 outside."""
    groups = gather_groups(Windows(block, np.where(block >= 0, 0, -1)).labels())
    valid = on_host(groups.valid)
    group, slot = valid.nonzero()
    members = on_host(groups.index)[valid]
    rank, side = np.zeros_like(block), np.ones_like(block)
    rank.flat[members] = slot
    side.flat[members] = square_side(valid.sum(1))[group]
    window = part(rank // side, side, windows) * windows + part(rank % side, side, windows)
    return Windows(block, np.where(block >= 0, window, -1))
