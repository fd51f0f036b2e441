"""Groups of tokens that are treated together, and where a token lies on its grid.

All of it follows from a layout, so the host works it out and hands over the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.layout import TokenKind, TokenLayout


@dataclass(frozen=True)
class Groups:
    """Tokens that may merge with each other, one row per group.

    Attributes:
        index: (G, M) int64, positions b * N + n in sequence order, 0 where invalid.
        valid: (G, M) bool; the M_g tokens of a group come first.
        row: (G,) on the host, row of the batch that each group lies in.
        filled: True if the host knows that every slot is valid.
    """

    index: Tensor
    valid: Tensor
    row: NDArray[np.int64]
    filled: bool = False

    def to(self, device: torch.device) -> Groups:
        """The same groups on another device."""
        index, valid = (one.to(device, non_blocking=True) for one in (self.index, self.valid))
        return replace(self, index=index, valid=valid)

    @property
    def counts(self) -> Tensor:
        """(G,) int64: tokens of each group."""
        return self.valid.sum(1)


def gather_groups(labels: NDArray[np.int64]) -> Groups:
    """Collect tokens of equal label.

    Args:
        labels: (B, N); -1 belongs to no group. Labels of different rows must differ.

    Returns:
        Groups on the host in ascending order of label, padded to the largest.
    """
    flat = labels.ravel()
    outside = np.count_nonzero(flat < 0)
    members = flat.argsort(kind="stable")[outside:]
    counts = np.bincount(flat[members])
    counts = counts[counts > 0]
    valid = np.arange(counts.max(initial=0)) < counts[:, None]
    index = np.zeros(valid.shape, np.int64)
    index[valid] = members
    row = members[counts.cumsum() - counts] // labels.shape[1]
    return Groups(torch.from_numpy(index), torch.from_numpy(valid), row, bool(valid.all()))


def cells(layout: TokenLayout) -> NDArray[np.bool_]:
    """(B, N): vision tokens with a cell of their own, so not the line breaks."""
    kind, segment, col = (layout.arrays[name] for name in ("kind", "segment", "col"))
    vision = kind == TokenKind.VISION
    inside: NDArray[np.bool_] = vision & (segment >= 0) & (col < layout.once(extents)[..., 2])
    return inside


def extents(layout: TokenLayout) -> NDArray[np.int64]:
    """(B, N, 3): frames, rows and columns of the grid that each token lies on."""
    most = max((len(grids) for grids in layout.grids), default=0)
    table = [
        [(g.frames, g.rows, g.cols) for g in grids] + [(0, 0, 0)] * (most + 1 - len(grids))
        for grids in layout.grids
    ]
    where = layout.arrays["segment"].clip(0)
    rows = np.arange(layout.batch_size)[:, None]
    sizes: NDArray[np.int64] = np.array(table, np.int64)[rows, where]
    return sizes
