"""What each position of a padded batch holds: padding, system text, vision, text.

A :class:`TokenLayout` is the only thing a compressor learns about a prompt.  How it was found out
is the business of a model family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor


class TokenKind(IntEnum):
    """Kind of a token.

    ``SYSTEM`` is the text before the first vision token, ``TEXT`` the text after it (the question
    and its frame), ``SEPARATOR`` a structural token inside an image (row breaks, tile markers).
    """

    PADDING = 0
    SYSTEM = 1
    VISION = 2
    TEXT = 3
    SEPARATOR = 4


@dataclass(frozen=True)
class Grid:
    """Extent of one image or video on its token grid: frames x rows x columns."""

    frames: int
    rows: int
    cols: int

    @property
    def cells(self) -> int:
        return self.frames * self.rows * self.cols


@dataclass(frozen=True)
class TokenLayout:
    """Layout of a batch of B rows and N positions.

    Attributes:
        kind: (B, N) int64, values of :class:`TokenKind`.
        image: (B, N) int64, index of the image within its row, -1 where no vision token.
        segment: (B, N) int64, index into ``grids[b]`` (one image may lie on several grids, as
            tiles do), -1 where no vision token.
        frame, row, col: (B, N) int64, cell on that grid, -1 where no vision token. A vision slot
            without a cell of its own (a learned line break) has ``col`` equal to the grid's width.
        position: (B, N) int64, index in the row's own prompt without padding, -1 for padding.
        grids: per batch row the grids that its vision tokens lie on.
    """

    kind: Tensor
    image: Tensor
    segment: Tensor
    frame: Tensor
    row: Tensor
    col: Tensor
    position: Tensor
    grids: tuple[tuple[Grid, ...], ...]

    @property
    def batch_size(self) -> int:
        return int(self.kind.shape[0])

    @property
    def length(self) -> int:
        return int(self.kind.shape[1])

    @property
    def real(self) -> Tensor:
        """(B, N) bool: every token that is not padding."""
        return self.kind != TokenKind.PADDING

    @property
    def vision(self) -> Tensor:
        """(B, N) bool: vision tokens."""
        return self.kind == TokenKind.VISION

    @property
    def text(self) -> Tensor:
        """(B, N) bool: every real token that is not vision (system, separators, question)."""
        return self.real & ~self.vision

    @property
    def question(self) -> Tensor:
        """(B, N) bool: text after the first vision token; "the text" of TGV-KV."""
        return self.kind == TokenKind.TEXT

    @property
    def prompt_lengths(self) -> Tensor:
        """(B,) int64: real tokens of each row."""
        return self.real.sum(1)

    def select(self, index: Tensor, valid: Tensor) -> TokenLayout:
        """Layout of the surviving tokens.

        Args:
            index: (B, K) int64, positions that survive.
            valid: (B, K) bool; an invalid slot becomes padding.
        """
        gathered = {
            f.name: getattr(self, f.name).gather(1, index)
            for f in fields(self)
            if f.name not in ("kind", "grids")
        }
        kind = self.kind.gather(1, index)
        kind = torch.where(valid, kind, torch.full_like(kind, int(TokenKind.PADDING)))
        gathered = {k: torch.where(valid, v, torch.full_like(v, -1)) for k, v in gathered.items()}
        return TokenLayout(kind=kind, grids=self.grids, **gathered)

    def to(self, device: torch.device | str) -> TokenLayout:
        """The same layout on another device."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "grids"
        }
        return TokenLayout(grids=self.grids, **moved)

    @staticmethod
    def stack(rows: Sequence[TokenLayout]) -> TokenLayout:
        """Left-pad layouts of one row each to a common length and stack them."""
        length = max(r.length for r in rows)
        columns: dict[str, Tensor] = {}
        for f in fields(TokenLayout):
            if f.name == "grids":
                continue
            fill = int(TokenKind.PADDING) if f.name == "kind" else -1
            columns[f.name] = torch.cat(
                [
                    torch.nn.functional.pad(getattr(r, f.name), (length - r.length, 0), value=fill)
                    for r in rows
                ]
            )
        return TokenLayout(grids=tuple(g for r in rows for g in r.grids), **columns)


def single_layout(
    kinds: Sequence[int] | Tensor,
    grids: Sequence[Grid] = (),
) -> TokenLayout:
    """Layout of one row whose vision tokens fill ``grids`` in raster order.

    Args:
        kinds: (N,) values of :class:`TokenKind`.
        grids: One grid per image; their cells sum to the number of vision tokens.

    Raises:
        ValueError: If the cells of the grids don't sum to the number of vision tokens.
    """
    kind = torch.as_tensor(kinds, dtype=torch.int64)
    vision = kind == TokenKind.VISION
    count = int(vision.sum())
    if sum(g.cells for g in grids) != count:
        raise ValueError(f"{count} vision tokens, but the grids {list(grids)} have other counts")
    cells = {
        name: torch.full_like(kind, -1) for name in ("image", "segment", "frame", "row", "col")
    }
    slots = vision.nonzero()[:, 0]
    start = 0
    for number, grid in enumerate(grids):
        where = slots[start : start + grid.cells]
        raster = torch.arange(grid.cells)
        cells["image"][where] = number
        cells["segment"][where] = number
        cells["frame"][where] = raster // (grid.rows * grid.cols)
        cells["row"][where] = raster // grid.cols % grid.rows
        cells["col"][where] = raster % grid.cols
        start += grid.cells
    real = kind != TokenKind.PADDING
    position = torch.where(real, real.long().cumsum(0) - 1, torch.full_like(kind, -1))
    columns = {name: value[None] for name, value in cells.items()}
    return TokenLayout(kind=kind[None], position=position[None], grids=(tuple(grids),), **columns)
