"""The area a picture is drawn on: patches in rows and columns, and the grid of cells over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lightkv.embedded.vocabulary import COLUMNS, ROWS

Index = NDArray[np.int64]

PATCH: Final = 8
"""Pixels a side of a patch; a patch is one vision token."""
_THREE_BANDS: Final = 12


@dataclass(frozen=True)
class Canvas:
    """A picture of ``rows`` x ``columns`` patches.

    A side of at least 12 patches has three bands of cells, a shorter one two: every cell is at
    least four patches wide, so that a number of four digits fits. Cells are numbered in reading
    order.

    Attributes:
        rows: Patches from top to bottom, at least 8.
        columns: Patches from left to right, at least 8.
    """

    rows: int
    columns: int

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.rows * PATCH

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.columns * PATCH

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    @cached_property
    def row_edges(self) -> Index:
        """First patch row of every band of cells, and the end."""
        return _edges(self.rows)

    @cached_property
    def column_edges(self) -> Index:
        """First patch column of every band of cells, and the end."""
        return _edges(self.columns)

    @property
    def cells_down(self) -> int:
        return len(self.row_edges) - 1

    @property
    def cells_across(self) -> int:
        return len(self.column_edges) - 1

    @property
    def cells(self) -> int:
        return self.cells_down * self.cells_across

    @cached_property
    def row_words(self) -> Index:
        """Index into ``ROWS`` of the name of every band of cells; two are top and bottom."""
        return _names(self.cells_down)

    @cached_property
    def column_words(self) -> Index:
        """Index into ``COLUMNS`` of the name of every band of cells; two are left and right."""
        return _names(self.cells_across)

    @cached_property
    def cell_of_patch(self) -> Index:
        """The cell of every patch, ``(rows, columns)``."""
        down = np.searchsorted(self.row_edges, np.arange(self.rows), side="right") - 1
        across = np.searchsorted(self.column_edges, np.arange(self.columns), side="right") - 1
        return down[:, None] * self.cells_across + across[None, :]

    def place(self, cell: int) -> str:
        """The two words that name a cell, for example ``top left``."""
        down, across = divmod(cell, self.cells_across)
        return f"{ROWS[self.row_words[down]]} {COLUMNS[self.column_words[across]]}"


def _edges(patches: int) -> Index:
    bands = 3 if patches >= _THREE_BANDS else 2
    return np.round(np.arange(bands + 1) * patches / bands).astype(np.int64)


def _names(bands: int) -> Index:
    return np.arange(3) if bands == 3 else np.array([0, 2])


SQUARE: Final = Canvas(16, 16)
"""The canvas of the square model: 128 x 128 pixels, nine cells."""
