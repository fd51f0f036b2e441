"""uniform-grid: patches at even distances, whatever they show. A control from no paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_share
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.cell_plans import (
    Counted,
    Piece,
    centres,
    nearest,
    planned,
    shared_out,
    spread,
    vision_share,
)


@register("uniform-grid", by_share=lambda share: UniformGrid(kept=share))
@dataclass(frozen=True)
class UniformGrid(BeforeDecoder):
    """Every n-th patch, in both directions of each grid.

    Attributes:
        kept: Share of the tokens that stays; what a prompt keeps is rounded once and shared out
            over its grids and frames. Line breaks count as tokens and stay with their row.
        of: What it is a share of: "vision" tokens, or the whole "prompt", whose text stays, so
            that as many entries are held as by an evictor of that retention.
        spacing: Even distances on the "grid", or along the "sequence" of all vision tokens.
    """

    kept: float = 0.25
    of: Counted = "vision"
    spacing: Literal["grid", "sequence"] = "grid"

    def check(self, facts: ModelFacts) -> None:
        """Refuse a share out of range."""
        check_share("kept", self.kept)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image, or with more text than the share."""
        super().check_layout(layout)
        vision_share(self.kept, self.of, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        layout = view.layout
        shares = vision_share(self.kept, self.of, layout)
        if self.spacing == "grid":
            stays = planned(layout, lambda pieces: _on_grids(pieces, shares)) > 0
        else:
            stays = _in_sequence(layout, shares)
        return Reduction.from_keep(layout.text | stays)


def _on_grids(pieces: Sequence[Piece], shares: Sequence[Fraction]) -> list[Tensor]:
    """A table of what stays for each grid of one prompt."""
    if not pieces:
        return []
    total = nearest(shares[pieces[0].row], sum(piece.tokens for piece in pieces))
    total -= sum(piece.fixed for piece in pieces)
    counts = shared_out(max(0, total), [piece.tokens - piece.fixed for piece in pieces])
    return [
        spread(shared_out(count, [1] * piece.grid.frames), piece.grid, piece.breaks)
        for piece, count in zip(pieces, counts, strict=True)
    ]


def _in_sequence(layout: TokenLayout, shares: Sequence[Fraction]) -> Tensor:
    """(B, N) bool: vision tokens at even distances in their prompt."""
    vision = layout.vision
    stays = torch.zeros_like(vision)
    for row, share in enumerate(shares):
        places = vision[row].nonzero()[:, 0]
        stays[row, places[centres(nearest(share, len(places)), len(places))]] = True
    return stays
