"""Choosing tokens: the best of some candidates, a row or a group at a time. Ties: lowest index.

Near-ties are decided by the rounding of the scores, which may change with the processor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.groups import Groups, cells, gather_groups
from lightkv.contract.host import on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.view import LayerView

Pool = Literal["tile", "image"]
"""Whose tokens compete with each other: those of one tile (one pass of the vision tower; an image
without tiles is one), or all of an image."""


def top(score: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """Mark the highest-scored candidates.

    Args:
        score: (..., N) float.
        candidates: (..., N) bool.
        counts: (...) int64, how many; more than there are marks all.

    Returns:
        (..., N) bool.
    """
    ranked = score.masked_fill(~candidates, -torch.inf)
    order = torch.argsort(ranked, dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order)
    slots = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank.scatter_(-1, order, slots)
    return candidates & (rank < counts[..., None])


def image_groups(layout: TokenLayout) -> Groups:
    """One group per image of the batch: its vision tokens but for line breaks."""
    return _groups(layout, cells(layout), layout.arrays["image"])


def tile_groups(view: LayerView) -> Groups:
    """One group per tile of the images of a batch, as :func:`image_groups` otherwise.

    A tile is one pass of the vision tower. Of a tile that reaches beyond its image only the cells
    on the image count.

    Raises:
        UnsupportedError: If the model can't tell its tiles apart.
    """
    return _groups(view.layout, cells(view.layout), on_host(view.read_vision("tile")))


def needs_of(per: Pool) -> set[str]:
    """Fields of :class:`~lightkv.contract.view.VisionFeatures` that :func:`pools` reads."""
    return {"tile"} if per == "tile" else set()


def pools(view: LayerView, per: Pool) -> Groups:
    """Groups of tokens that compete: those of each tile or of each image."""
    return tile_groups(view) if per == "tile" else image_groups(view.layout)


def row_groups(layout: TokenLayout) -> Groups:
    """One group per row of the batch: all its vision tokens."""
    vision = on_host(layout.host.vision)
    return _groups(layout, vision, np.zeros(vision.shape, np.int64))


def _groups(layout: TokenLayout, inside: NDArray[np.bool_], label: NDArray[np.int64]) -> Groups:
    """One group per row and label (B, N), of the marked tokens."""
    rows = np.arange(layout.batch_size)[:, None]
    labels = np.where(inside, rows * (label.max() + 1) + label, -1)
    return gather_groups(labels).to(layout.kind.device)


def of_groups(values: Tensor, groups: Groups) -> Tensor:
    """Values (B, N, ...) of the members of each group, (G, M, ...)."""
    return values.flatten(0, 1)[groups.index]


def keep_only(layout: TokenLayout, groups: Groups, stays: Tensor) -> Reduction:
    """Prune the members of groups that are not to stay; all other real tokens stay.

    Args:
        layout: Layout of the (B, N) positions.
        groups: (G, M).
        stays: (G, M) bool.
    """
    keep = layout.real.clone()
    keep.view(-1)[groups.index[groups.valid & ~stays]] = False
    return Reduction.from_keep(keep)
