"""Plans that look at no content: which cells of a grid stay, or into how many blocks it is cut.

A plan is a table (frames, rows, cols + 1); the last column is for line breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.cost.token_counts import as_written
from lightkv.errors import InvalidValueError

Counted = Literal["vision", "prompt"]
"""What a share is of: the vision tokens, or the whole prompt, whose text stays."""


@dataclass(frozen=True)
class Piece:
    """The tokens of one grid of one prompt.

    Attributes:
        row: Of the batch.
        grid: Its extent.
        tokens: Vision tokens on it, line breaks included.
        breaks: Whether every row ends in a line break.
        fixed: Other tokens without a cell; they stay.
    """

    row: int
    grid: Grid
    tokens: int
    breaks: bool
    fixed: int


def vision_share(kept: float, of: Counted, layout: TokenLayout) -> list[Fraction]:
    """Per row of a batch, the share of its vision tokens to keep.

    Raises:
        InvalidValueError: If the text alone is more than the share of a prompt.
    """
    share = as_written(kept)
    shares = []
    for vision, total in zip(
        layout.vision.sum(1).tolist(), layout.real.sum(1).tolist(), strict=True
    ):
        left = share if of == "vision" else (share * total - (total - vision)) / vision
        if left <= 0:
            allowed = f"above {(total - vision) / total:.3g}, the share of text in a prompt"
            raise InvalidValueError("kept", kept, allowed)
        shares.append(left)
    return shares


def planned(layout: TokenLayout, plan: Callable[[Sequence[Piece]], Sequence[Tensor]]) -> Tensor:
    """(B, N) int64: what a plan says of each vision token, -1 for all others.

    Args:
        layout: Of the uncompressed prompts.
        plan: Of the pieces of one prompt a table each.
    """
    there = layout.to("cpu")
    values = torch.full_like(there.kind, -1)
    for row, grids in enumerate(there.grids):
        members = [there.vision[row] & (there.segment[row] == n) for n in range(len(grids))]
        pieces = []
        for grid, member in zip(grids, members, strict=True):
            extra = int((there.col[row, member] == grid.cols).sum())
            breaks = extra >= grid.frames * grid.rows
            fixed = 0 if breaks else extra
            pieces.append(Piece(row, grid, int(member.sum()), breaks, fixed))
        for member, table in zip(members, plan(pieces), strict=True):
            cell = (there.frame[row, member], there.row[row, member], there.col[row, member])
            values[row, member] = table[cell].long()
    return values.to(layout.kind.device)


def spread(counts: Sequence[int], grid: Grid, breaks: bool) -> Tensor:
    """(frames, rows, cols + 1) bool: cells at even distances in both directions.

    They lie in bands of one row each, as many bands as make the distances alike. A line break stays
    with its row, and counts; other tokens without a cell stay.

    Args:
        counts: Per frame, tokens that stay, at least 1; more than there are keeps all.
        grid: The grid.
        breaks: Whether every row ends in a line break.
    """
    width = grid.cols + breaks
    kept = torch.zeros(grid.frames, grid.rows, grid.cols + 1, dtype=torch.bool)
    kept[..., grid.cols] = not breaks
    for frame, count in enumerate(counts):
        # A line break alone shows nothing: every band holds a cell.
        most = min(grid.rows, count // (1 + breaks))
        bands = max(min(round((count * grid.rows / width) ** 0.5), most), -(-count // width))
        bands = min(max(bands, 1), grid.rows)
        cells = min(max(count - bands * breaks, bands), bands * grid.cols)
        for band, row in enumerate(centres(bands, grid.rows)):
            held = cells * (band + 1) // bands - cells * band // bands
            kept[frame, row, centres(held, grid.cols)] = True
            kept[frame, row, grid.cols] = True
    return kept


def blocks(share: Fraction, grid: Grid, breaks: bool) -> Tensor:
    """(frames, rows, cols + 1) int64: numbers of the blocks that a grid is cut into.

    Each side is cut into nearly equal parts, the longer ones first; as many parts as bring the
    number of blocks nearest to the share, sides shrinking alike. The line breaks of a band of rows
    are a block of their own, and so is every other token without a cell.
    """
    rows, cols = _sides(share, grid, breaks)
    band, across = _parts(grid.rows, rows), _parts(grid.cols, cols)
    lines = torch.arange(grid.rows)
    ends = rows * cols + (band if breaks else lines)
    table = torch.cat([band[:, None] * cols + across, ends[:, None]], 1)  # (rows, cols + 1)
    size = rows * cols + grid.rows
    return table + torch.arange(grid.frames)[:, None, None] * size


def _sides(share: Fraction, grid: Grid, breaks: bool) -> tuple[int, int]:
    """Rows and columns of the smaller grid."""
    side, wanted = float(share) ** 0.5, float(share) * grid.rows * (grid.cols + breaks)
    choices = [
        (max(1, int(grid.rows * side) + more), max(1, int(grid.cols * side) + wider))
        for more in (0, 1)
        for wider in (0, 1)
    ]
    fitting = [(r, c) for r, c in choices if r <= grid.rows and c <= grid.cols]
    return min(fitting, key=lambda sides: abs(sides[0] * (sides[1] + breaks) - wanted))


def _parts(length: int, parts: int) -> Tensor:
    """(length,) int64: number of the part that each place lies in, the longer parts first."""
    sizes = [len(one) for one in torch.arange(length).tensor_split(parts)]
    return torch.arange(parts).repeat_interleave(torch.tensor(sizes))


def centres(count: int, length: int) -> list[int]:
    """The places in the middle of ``count`` equal parts of a length."""
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]


def nearest(share: Fraction, tokens: int) -> int:
    """Whole tokens of a share, halves up, at least 1 and at most all."""
    return min(max(1, int(share * tokens + Fraction(1, 2))), tokens)


def shared_out(total: int, sizes: Sequence[int]) -> list[int]:
    """``total`` tokens in proportion to sizes, by largest remainder; at least 1 of each."""
    exact = [Fraction(total * size, sum(sizes)) for size in sizes]
    shares = [int(one) for one in exact]
    order = sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])
    for place in order[: total - sum(shares)]:
        shares[place] += 1
    return [max(1, share) for share in shares]
