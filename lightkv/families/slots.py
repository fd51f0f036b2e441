"""How the vision tokens of a prompt fill their grids, slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenKind, TokenLayout
from lightkv.errors import InputError

Breaks = Literal["none", "rows", "end"]


@dataclass(frozen=True)
class Segment:
    """A grid as it is read into the prompt, in raster order.

    Attributes:
        grid: Frames, rows and columns.
        breaks: Learned line breaks that take a vision slot each: after every row ("rows") or once
            at the end ("end"). They have no cell; their column is the grid's width.
        leading: Slots without a cell before the grid (a class token).
    """

    grid: Grid
    breaks: Breaks = "none"
    leading: int = 0

    @property
    def tokens(self) -> int:
        """Vision slots in the prompt, line breaks included."""
        extra = {"none": 0, "rows": self.grid.frames * self.grid.rows, "end": 1}[self.breaks]
        return self.leading + self.grid.cells + extra

    def cells(self) -> Tensor:
        """(tokens, 3) int64: frame, row and column of each slot."""
        frames, rows, cols = self.grid.frames, self.grid.rows, self.grid.cols
        width = cols + (self.breaks == "rows")
        axes = torch.meshgrid(
            torch.arange(frames), torch.arange(rows), torch.arange(width), indexing="ij"
        )
        cells = torch.stack(axes, -1).view(-1, 3)
        before = torch.tensor([[0, 0, cols]]).expand(self.leading, 3)
        after = torch.tensor([[frames - 1, rows - 1, cols]]).expand(int(self.breaks == "end"), 3)
        return torch.cat([before, cells, after])


@dataclass(frozen=True)
class Picture:
    """One image or video: its segments in prompt order.

    Attributes:
        segments: What fills its vision slots.
        closing: Structural tokens right after the last slot that belong to the picture.
    """

    segments: tuple[Segment, ...]
    closing: int = 0

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True)
class Placed:
    """Pictures and the vision slots (n,) int64 that they fill, in order."""

    slots: Tensor
    pictures: Sequence[Picture]


def text_kinds(vision: Tensor, real: Tensor) -> Tensor:
    """Kinds (N,) of a row: text before the first vision token is SYSTEM, after it TEXT.

    Args:
        vision: (N,) bool. A row without vision tokens is TEXT throughout.
        real: (N,) bool, False for padding.
    """
    seen = vision.cumsum(0) > 0 if bool(vision.any()) else torch.ones_like(vision)
    kind = torch.where(seen, int(TokenKind.TEXT), int(TokenKind.SYSTEM))
    kind = torch.where(vision, int(TokenKind.VISION), kind)
    return torch.where(real, kind, int(TokenKind.PADDING))


def row_layout(real: Tensor, placed: Sequence[Placed]) -> TokenLayout:
    """Layout of one row.

    Pictures are numbered in prompt order; text between the slots of one picture is a separator,
    what is masked there stays padding.

    Args:
        real: (N,) bool, False for padding.
        placed: Per kind of placeholder its pictures.

    Raises:
        InputError: If pictures and slots don't match in number.
    """
    real = real.cpu()
    vision = torch.zeros_like(real)
    in_order: list[tuple[Tensor, Picture]] = []
    for group in placed:
        slots = group.slots.cpu()
        vision[slots] = True
        wanted = sum(picture.tokens for picture in group.pictures)
        if wanted != len(slots):
            raise InputError(
                f"{len(slots)} vision tokens in the prompt, but its {len(group.pictures)} pictures "
                f"take {wanted}; build the prompt with the model's own processor"
            )
        start = 0
        for picture in group.pictures:
            in_order.append((slots[start : start + picture.tokens], picture))
            start += picture.tokens
    in_order.sort(key=lambda item: int(item[0][0]))
    kind = text_kinds(vision, real)
    columns = {
        name: torch.full_like(kind, -1) for name in ("image", "segment", "frame", "row", "col")
    }
    grids: list[Grid] = []
    for number, (slots, picture) in enumerate(in_order):
        inside = slice(int(slots[0]), int(slots[-1]) + 1 + picture.closing)
        structural = real[inside] & ~vision[inside]
        kind[inside] = torch.where(structural, int(TokenKind.SEPARATOR), kind[inside])
        _fill(columns, grids, number, slots, picture)
    position = torch.where(real, real.long().cumsum(0) - 1, -1)
    return TokenLayout(
        kind=kind[None],
        position=position[None],
        grids=(tuple(grids),),
        **{name: value[None] for name, value in columns.items()},
    )


def _fill(
    columns: dict[str, Tensor], grids: list[Grid], number: int, slots: Tensor, picture: Picture
) -> None:
    columns["image"][slots] = number
    start = 0
    for segment in picture.segments:
        where = slots[start : start + segment.tokens]
        columns["segment"][where] = len(grids)
        for name, values in zip(("frame", "row", "col"), segment.cells().unbind(1), strict=True):
            columns[name][where] = values
        grids.append(segment.grid)
        start += segment.tokens


def runs(slots: Tensor) -> list[tuple[int, int]]:
    """Contiguous runs of ascending slots as (start, end), end excluded."""
    positions = slots.tolist()
    starts = [p for i, p in enumerate(positions) if i == 0 or positions[i - 1] != p - 1]
    last = len(positions) - 1
    ends = [p + 1 for i, p in enumerate(positions) if i == last or positions[i + 1] != p + 1]
    return list(zip(starts, ends, strict=True))
