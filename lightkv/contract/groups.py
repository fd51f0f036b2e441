"""Groups of tokens that are treated together, and where a token lies on its grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout


@dataclass(frozen=True)
class Groups:
    """Tokens that may merge with each other, one row per group.

    Attributes:
        index: (G, M) int64, positions b * N + n in sequence order, 0 where invalid.
        valid: (G, M) bool; the M_g tokens of a group come first.
    """

    index: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> Groups:
        """The same groups on another device."""
        return Groups(self.index.to(device), self.valid.to(device))

    @property
    def counts(self) -> Tensor:
        """(G,) int64: tokens of each group."""
        return self.valid.sum(1)


def gather_groups(labels: Tensor) -> Groups:
    """Collect tokens of equal label.

    Args:
        labels: (B, N) int64; -1 belongs to no group. Labels of different rows must differ.

    Returns:
        Groups in ascending order of label, padded to the largest.
    """
    flat = labels.flatten()
    members = (flat >= 0).nonzero()[:, 0]
    order = torch.argsort(flat[members], stable=True)
    members = members[order]
    _, number, counts = torch.unique_consecutive(
        flat[members], return_inverse=True, return_counts=True
    )
    starts = counts.cumsum(0) - counts
    slots = torch.arange(len(members), device=flat.device) - starts[number]
    width = int(counts.max()) if len(counts) else 0
    index = torch.zeros(len(counts), width, dtype=torch.int64, device=flat.device)
    index[number, slots] = members
    return Groups(index, torch.arange(width, device=flat.device) < counts[:, None])


def cells(layout: TokenLayout) -> Tensor:
    """(B, N) bool: vision tokens with a cell of their own, so not the line breaks."""
    return layout.vision & (layout.segment >= 0) & (layout.col < extents(layout)[..., 2])


def extents(layout: TokenLayout) -> Tensor:
    """(B, N, 3) int64: frames, rows and columns of the grid that each token lies on."""
    most = max((len(grids) for grids in layout.grids), default=0)
    table = [
        [(g.frames, g.rows, g.cols) for g in grids] + [(0, 0, 0)] * (most + 1 - len(grids))
        for grids in layout.grids
    ]
    sizes = torch.tensor(table, dtype=torch.int64, device=layout.kind.device)
    where = layout.segment.clamp_min(0)[..., None].expand(-1, -1, 3)
    return sizes.gather(1, where)
