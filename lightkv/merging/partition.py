"""Where vision tokens may meet: windows on their grids, on a square re-reading, or everywhere.

A partition gives every token the number of its block (an image, a tile, a frame) and of its window
in that block.  Tokens outside every window (text, padding, line breaks) are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.groups import cells, extents, gather_groups
from lightkv.contract.layout import TokenLayout
from lightkv.errors import InputError

Partition = Literal["true-grid", "square", "square-blocks", "global"]


@dataclass(frozen=True)
class Windows:
    """A partition of the tokens of a batch.

    Attributes:
        block: (B, N) int64, number of the grid within the row that holds the token, -1 for none.
        window: (B, N) int64, number of the window on that grid, row by row, -1 for none.
    """

    block: Tensor
    window: Tensor

    def labels(self) -> Tensor:
        """(B, N) int64: a number per batch row, block and window; -1 outside every window."""
        inside = self.window >= 0
        if not inside.any():
            return torch.full_like(self.window, -1)
        windows = int(self.window.max()) + 1
        blocks = int(self.block.max()) + 1
        rows = torch.arange(self.block.shape[0], device=self.block.device)[:, None]
        return torch.where(inside, (rows * blocks + self.block) * windows + self.window, -1)


def part(coordinate: Tensor, side: Tensor, parts: int) -> Tensor:
    """Number of the part that a coordinate lies in; the first ``side mod parts`` are one longer.

    With more parts than coordinates every coordinate is a part of its own.
    """
    length, longer = side // parts, side % parts
    edge = longer * (length + 1)
    beyond = torch.div(coordinate - edge, length.clamp_min(1), rounding_mode="floor")
    return torch.where(coordinate < edge, coordinate // (length + 1), longer + beyond)


def true_grid(layout: TokenLayout, windows: int) -> Windows:
    """w x w windows on every image's own grid, by the cells of the surviving tokens.

    Frames of a video and tiles of an image are grids of their own. A vision slot without a cell
    of its own (a learned line break) is left alone.
    """
    frames, rows, cols = extents(layout).unbind(-1)
    inside = cells(layout)
    most = int(frames.max()) if frames.numel() else 0
    block = layout.segment * most + layout.frame
    window = part(layout.row, rows, windows) * windows + part(layout.col, cols, windows)
    return Windows(torch.where(inside, block, -1), torch.where(inside, window, -1))


def square(layout: TokenLayout, windows: int) -> Windows:
    """Each image's tokens re-read, in sequence order, as a square just large enough."""
    return _square_windows(torch.where(layout.vision, layout.image, -1), windows)


def square_blocks(layout: TokenLayout, windows: int) -> Windows:
    """The released code's partition: equal blocks, each re-read as a square.

    A row's vision tokens are strung together and dealt into as many equal blocks as it has
    images. That is :func:`square` unless the images differ in size; then blocks mix images.

    Raises:
        InputError: If the tokens of a row can't be dealt evenly.
    """
    images = (layout.image.amax(1) + 1).clamp_min(1)
    total = layout.vision.sum(1)
    uneven = (total % images != 0).nonzero()
    if len(uneven):
        row = int(uneven[0])
        raise InputError(
            f"row {row} of the batch holds {int(total[row])} vision tokens of {int(images[row])} "
            "images; the released partition deals them into equal blocks"
        )
    rank = layout.vision.long().cumsum(1) - 1
    size = (total // images).clamp_min(1)
    return _square_windows(torch.where(layout.vision, rank // size[:, None], -1), windows)


def everywhere(layout: TokenLayout, windows: int = 1) -> Windows:
    """One window over all vision tokens of a row, whatever ``windows`` says."""
    window = torch.where(layout.vision, 0, -1)
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


def square_side(count: Tensor) -> Tensor:
    """Side of the smallest square with at least ``count`` cells."""
    root = count.clamp_min(1).double().sqrt().ceil().long()
    return torch.where((root - 1) ** 2 >= count.clamp_min(1), root - 1, root)


def _square_windows(block: Tensor, windows: int) -> Windows:
    """Windows on the square re-reading of blocks (B, N), -1 outside."""
    groups = gather_groups(Windows(block, torch.where(block >= 0, 0, -1)).labels())
    slots = torch.arange(groups.index.shape[1], device=block.device).expand_as(groups.index)
    side = torch.ones_like(block).flatten()
    rank = torch.zeros_like(side)
    rank[groups.index[groups.valid]] = slots[groups.valid]
    sides = square_side(groups.counts)[:, None].expand_as(groups.index)
    side[groups.index[groups.valid]] = sides[groups.valid]
    rank, side = rank.view_as(block), side.view_as(block)
    window = part(rank // side, side, windows) * windows + part(rank % side, side, windows)
    return Windows(block, torch.where(block >= 0, window, -1))
