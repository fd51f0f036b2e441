"""What each position of a padded batch holds: padding, system text, vision, text.

A :class:`TokenLayout` is the only thing a compressor learns about a prompt.  How it was found out
is the business of a model family.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.host import on_host

Fact = TypeVar("Fact")


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

    What follows from it (masks, lengths) is computed once and shared: do not write into it.

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

    @cached_property
    def real(self) -> Tensor:
        """(B, N) bool: every token that is not padding."""
        return self.kind != TokenKind.PADDING

    @cached_property
    def vision(self) -> Tensor:
        """(B, N) bool: vision tokens."""
        return self.kind == TokenKind.VISION

    @cached_property
    def text(self) -> Tensor:
        """(B, N) bool: every real token that is not vision (system, separators, question)."""
        return self.real & ~self.vision

    @cached_property
    def question(self) -> Tensor:
        """(B, N) bool: text after the first vision token; "the text" of TGV-KV."""
        return self.kind == TokenKind.TEXT

    @cached_property
    def prompt_lengths(self) -> Tensor:
        """(B,) int64: real tokens of each row."""
        return self.real.sum(1)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Real tokens of each row, as Python numbers."""
        return tuple(self.host.prompt_lengths.tolist())

    @property
    def host(self) -> TokenLayout:
        """The same layout on the host, which waits for it once; itself if it is there."""
        if self.kind.device.type == "cpu":
            return self
        if "_host" not in vars(self):
            vars(self)["_host"] = self.to("cpu")
        fetched: TokenLayout = vars(self)["_host"]
        return fetched

    @cached_property
    def arrays(self) -> Mapping[str, NDArray[np.int64]]:
        """The columns (B, N) by their names, as arrays on the host."""
        return dict(zip(_COLUMNS, on_host(self.host._columns), strict=True))

    @cached_property
    def padded(self) -> bool:
        """True if some position is padding."""
        return any(length < self.length for length in self.lengths)

    def once(self, make: Callable[..., Fact], *options: Hashable) -> Fact:
        """What a function makes of the layout, made when it is first asked for.

        Args:
            make: A function of the module level, called with the layout and the options.
            *options: What else it depends on.
        """
        facts: dict[Hashable, Fact] = vars(self).setdefault("_facts", {})
        if (make, options) not in facts:
            facts[make, options] = make(self, *options)
        return facts[make, options]

    def select(self, index: Tensor, valid: Tensor, *, filled: bool = False) -> TokenLayout:
        """Layout of the surviving tokens.

        Args:
            index: (B, K) int64, positions that survive.
            valid: (B, K) bool; an invalid slot becomes padding.
            filled: True if the host knows that every slot is valid.
        """
        picked = self._columns.gather(2, index.expand(len(_COLUMNS), -1, -1))
        if not filled:
            return self._of(torch.where(valid, picked, _blank(index.device)), self.grids)
        layout = self._of(picked, self.grids)
        if not self.padded:
            vars(layout)["lengths"] = (layout.length,) * layout.batch_size
        return layout

    def to(self, device: torch.device | str) -> TokenLayout:
        """The same layout on another device."""
        columns = self._columns.to(device)
        if columns is self._columns:
            return self
        moved = self._of(columns, self.grids)
        if self.kind.device.type == "cpu":
            vars(moved)["_host"] = self  # or the host would have to wait for it
        return moved

    def rows(self, index: Sequence[int]) -> TokenLayout:
        """The layout of some rows, in this order."""
        columns = self._columns[:, torch.tensor(index, device=self.kind.device)]
        return self._of(columns, tuple(self.grids[row] for row in index))

    def tiled(self, times: int) -> TokenLayout:
        """All rows, one after the other, ``times`` times over: (times * B, N)."""
        if times == 1:
            return self
        tiled = self._of(self._columns.repeat(1, times, 1), self.grids * times)
        vars(tiled)["lengths"] = self.lengths * times
        if "_host" in vars(self):
            vars(tiled)["_host"] = self.host.tiled(times)  # or the host would wait again
        return tiled

    @cached_property
    def _columns(self) -> Tensor:
        """(7, B, N) int64: all columns, so that they can be moved together."""
        return torch.stack([getattr(self, name) for name in _COLUMNS])

    @classmethod
    def _of(cls, columns: Tensor, grids: tuple[tuple[Grid, ...], ...]) -> TokenLayout:
        layout = cls(grids=grids, **dict(zip(_COLUMNS, columns.unbind(0), strict=True)))
        vars(layout)["_columns"] = columns
        return layout

    @staticmethod
    def stack(rows: Sequence[TokenLayout]) -> TokenLayout:
        """Left-pad layouts of one row each to a common length and stack them."""
        length = max(r.length for r in rows)
        columns: dict[str, Tensor] = {}
        for name in _COLUMNS:
            fill = int(TokenKind.PADDING) if name == "kind" else -1
            columns[name] = torch.cat(
                [
                    torch.nn.functional.pad(getattr(r, name), (length - r.length, 0), value=fill)
                    for r in rows
                ]
            )
        return TokenLayout(grids=tuple(g for r in rows for g in r.grids), **columns)


_COLUMNS = tuple(f.name for f in fields(TokenLayout) if f.name != "grids")


@cache
@torch.inference_mode(False)
def _blank(device: torch.device) -> Tensor:
    """(7, 1, 1) int64: what stands in the columns of a position of padding."""
    blank = [int(TokenKind.PADDING) if name == "kind" else -1 for name in _COLUMNS]
    return torch.tensor(blank, device=device)[:, None, None]


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
