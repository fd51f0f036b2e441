"""Which tile of an image a vision token lies in, and which part of the whole view a tile covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Tiles of the images of a batch, one image per row.

    Attributes:
        number: (G, M) int64, tile of each token: 0 is the whole view, -1 no token.
        region: (G, M) int64, for tokens of the whole view the tile that covers them, 0 otherwise.
        most: Largest tile number plus one.
    """

    number: Tensor
    region: Tensor
    most: int

    @classmethod
    def of(
        cls, valid: Tensor, segment: Tensor, cell: Tensor, extent: Tensor, spatial: bool
    ) -> Tiles:
        """Tiles of images on one grid, or on a whole view and a finer grid after it.

        Args:
            valid: (G, M) bool, tokens of each image.
            segment: (G, M) grid of each token.
            cell: (G, M, 2) row and column on it.
            extent: (G, M, 2) its rows and columns.
            spatial: Tiles cover their part of the whole view, else a chunk of its sequence.
        """
        start = segment.masked_fill(~valid, torch.iinfo(torch.int64).max).amin(-1, keepdim=True)
        whole = valid & (segment == start)
        finer = valid & ~whole
        base = extent.masked_fill(~whole[..., None], 0).amax(1).clamp_min(1)
        fine = extent.masked_fill(~finer[..., None], 0).amax(1)
        across = -(-fine // base)
        tile = cell * across[:, None] // extent.clamp_min(1)
        inside = 1 + tile[..., 0] * across[:, None, 1] + tile[..., 1]
        number = torch.where(finer, inside, torch.where(whole, 0, -1))
        if not spatial:
            cells = whole.sum(-1, keepdim=True).clamp_min(1)
            rank = whole.long().cumsum(-1) - 1
            inside = 1 + rank * across.prod(-1, keepdim=True) // cells
        region = torch.where(whole & finer.any(-1, keepdim=True), inside, 0)
        return cls(number, region, int(torch.maximum(number, region).max()) + 1)

    def count(self, marked: Tensor, tile: Tensor) -> Tensor:
        """(G, T) int64: marked tokens (G, M) per tile (G, M)."""
        counts = torch.zeros(len(tile), self.most, dtype=torch.int64, device=tile.device)
        return counts.scatter_add_(1, tile.clamp_min(0), marked.long())


def rank_within(label: Tensor, score: Tensor) -> Tensor:
    """(G, M) int64: place of each token among those of its label, by falling score.

    Ties: lowest index first.

    Args:
        label: (G, M) int64.
        score: (G, M).
    """
    by_score = torch.argsort(score, dim=-1, descending=True, stable=True)
    by_label = torch.argsort(label.gather(1, by_score), dim=-1, stable=True)
    order = by_score.gather(1, by_label)
    ordered = label.gather(1, order)
    slots = torch.arange(label.shape[1], device=label.device).expand_as(label)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = torch.where(fresh, slots, 0).cummax(-1).values
    return torch.empty_like(label).scatter_(1, order, slots - start)
