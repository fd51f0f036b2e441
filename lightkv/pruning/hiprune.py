"""HiPrune: patches that a middle layer of the tower attends to, their neighbours, and registers.

*HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models*,
Liu et al., arXiv 2508.00553.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.groups import Groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.selection import keep_only, needs_of, of_groups, tile_groups, top

MIDDLE = 9 / 23
"""Of the 23 layers up to the one that LLaVA reads, the ninth is the paper's object layer."""


@register("hiprune")
@dataclass(frozen=True)
class HiPrune(BeforeDecoder):
    """Anchors by attention received in a middle layer, their neighbours, then registers.

    Tile by tile: the anchors are the patches that the middle layer attends to most, a fifth of the
    share ``alpha`` of what stays (rounded half to even); their four neighbours stay with them; what
    is left of the budget goes to the patches that the tower's reading layer attends to most. Where
    neighbours exceed the budget (the released code fails there) those attended least leave.

    Attributes:
        tokens: Vision tokens that stay, per tile; all of a tile that has fewer.
        alpha: Share of them for anchors and their neighbours.
        object_layer: Number of the middle layer, counted from 1; None is layer 9 of 23, or as deep
            in a tower of another depth.
        neighbours: On the "grid" of the tile; or before, after, above and below in its "raster",
            as in the released code: the end of a row is next to the start of the one below, and
            what lies outside is moved to the first or last patch.
    """

    tokens: int = 64
    alpha: float = 0.1
    object_layer: int | None = None
    neighbours: Literal["grid", "raster"] = "grid"

    def needs_vision(self) -> frozenset[str]:
        """Attention received in every layer, and which patches are one tile's."""
        return frozenset({"received"} | needs_of("tile"))

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("tokens", self.tokens)
        if self.object_layer is not None:
            check_count("object_layer", self.object_layer)
        if not 0 <= self.alpha <= 1:
            raise InvalidValueError("alpha", self.alpha, "from 0 to 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image and images of fewer tokens than stay."""
        super().check_layout(layout)
        require_tokens("tokens", self.tokens, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune.

        Raises:
            InvalidValueError: If the tower has no such middle layer.
        """
        groups = tile_groups(view)
        received = of_groups(view.read_vision("received"), groups)  # (G, M, T)
        middle, reading = received[..., self._middle(received.shape[-1])], received[..., -1]
        anchors = torch.full_like(groups.counts, round(self.tokens * self.alpha / 5))
        anchor = top(middle, groups.valid, anchors)
        if self.neighbours == "grid":
            beside = _on_grid(view.layout, groups, anchor)
        else:
            beside = _in_raster(view.layout, groups, anchor)
        counts = torch.full_like(groups.counts, self.tokens)
        kept = torch.zeros_like(anchor)
        for score, candidates in ((middle, anchor), (middle, beside), (reading, groups.valid)):
            kept = kept | top(score, candidates & ~kept, counts - kept.sum(-1))
        return keep_only(view.layout, groups, kept)

    def _middle(self, depth: int) -> int:
        """0-based number of the middle layer in a tower of which ``depth`` layers are read."""
        number = max(1, round(MIDDLE * depth)) if self.object_layer is None else self.object_layer
        if number > depth:
            raise InvalidValueError("object_layer", number, f"at most {depth}, the layers read")
        return number - 1


def _on_grid(layout: TokenLayout, groups: Groups, anchor: Tensor) -> Tensor:
    """(G, M) bool: tokens above, below, left and right of an anchor on its grid."""
    row, col, segment = (
        of_groups(values, groups) for values in (layout.row, layout.col, layout.segment)
    )
    # (G, M, M): steps from one token of a group to another
    apart = (row[:, :, None] - row[:, None]).abs() + (col[:, :, None] - col[:, None]).abs()
    touching = (apart == 1) & (segment[:, :, None] == segment[:, None])
    return (touching & anchor[:, None]).any(-1) & groups.valid


def _in_raster(layout: TokenLayout, groups: Groups, anchor: Tensor) -> Tensor:
    """(G, M) bool: tokens before, after, a row before and a row after an anchor in its tile."""
    row = of_groups(layout.row, groups)
    first = row.gather(1, torch.zeros_like(row[:, :1]))
    width = ((row == first) & groups.valid).sum(-1, keepdim=True)
    places = torch.arange(row.shape[1], device=row.device)
    last = groups.counts[:, None] - 1
    hits = torch.zeros_like(row)
    for step in (-torch.ones_like(width), torch.ones_like(width), -width, width):
        hits.scatter_add_(1, torch.minimum((places + step).clamp_min(0), last), anchor.long())
    return (hits > 0) & groups.valid
