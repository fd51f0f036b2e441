"""HiRED: drop vision tokens tile by tile, with a budget per tile from the whole image's attention.

*HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language
Models*, Arif et al., AAAI 2025, arXiv 2408.10945.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_share
from lightkv.contract.groups import Groups, extents
from lightkv.contract.host import on_device
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.selection import image_groups, of_groups, top
from lightkv.pruning.tiles import Tiles, rank_within


@register("hired", by_share=lambda share: HiRED(kept=share))
@dataclass(frozen=True)
class HiRED(BeforeDecoder):
    """Top tokens of each tile by class-token attention; line breaks between them are dropped.

    Of an image with a whole view and a finer grid of tiles, the whole view gets a share of the
    budget; the tiles share the rest by how many of the whole view's most attended cells (in the
    tower's first layer) each of them covers. Numbers are rounded down. The finer grid is cut
    evenly into as many tiles as the whole view's grid fits into it, rounded up.

    Attributes:
        kept: Share of the vision tokens that stays.
        full: Share of the budget for the whole view (alpha).
        regions: A tile covers its "spatial" part of the whole view; or a "chunk" of its tokens in
            sequence, as in the released code.
    """

    kept: float = 0.2
    full: float = 0.5
    regions: Literal["spatial", "chunk"] = "spatial"

    def needs_vision(self) -> frozenset[str]:
        """Class-token attention of the tower's reading layer and of its first layer."""
        return frozenset({"cls_attention", "first_attention"})

    def check(self, facts: ModelFacts) -> None:
        """Refuse shares out of range."""
        check_share("kept", self.kept)
        if not 0 <= self.full <= 1:
            raise InvalidValueError("full", self.full, "from 0 to 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image, and images on more than two grids.

        Raises:
            UnsupportedError: If it is unknown how an image's tiles lie on it.
        """
        super().check_layout(layout)
        groups = image_groups(layout)
        segment = of_groups(layout.segment, groups)
        last = segment.masked_fill(~groups.valid, -1).amax(-1)
        first = segment.masked_fill(~groups.valid, int(last.max())).amin(-1)
        if bool((last - first > 1).any()):
            raise UnsupportedError(
                "HiRED knows images of one grid, or of a whole view and one more"
            )

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = image_groups(view.layout)
        sizes = on_device(extents(view.layout)[..., 1:], view.layout.kind.device)
        tiles = Tiles.of(
            groups.valid,
            of_groups(view.layout.segment, groups),
            of_groups(torch.stack([view.layout.row, view.layout.col], -1), groups),
            of_groups(sizes, groups),
            self.regions == "spatial",
        )
        attention = of_groups(view.read_vision("cls_attention"), groups)
        first = of_groups(view.read_vision("first_attention"), groups)
        quota = self._quotas(tiles, first)
        rank = rank_within(tiles.number, attention)
        stays = groups.valid & (rank < quota.gather(1, tiles.number.clamp_min(0)))
        return _keep_chosen(view.layout, groups, stays)

    def _quotas(self, tiles: Tiles, first: Tensor) -> Tensor:
        """(G, T) int64: tokens of each tile that stay; tile 0 is the whole view."""
        sizes = tiles.count(tiles.number >= 0, tiles.number)
        whole, finer = sizes[:, 0], sizes[:, 1:].sum(-1)
        budget = ((whole + finer).double() * self.kept).floor().long()
        share = torch.minimum((budget.double() * self.full).floor().long(), whole)
        full = torch.where(finer > 0, share, budget)
        marks = (whole.double() * (1 - self.full)).floor().long()
        covered = tiles.count(top(first, tiles.number == 0, marks), tiles.region)[:, 1:]
        left = torch.minimum(budget - full, finer)[:, None]
        quota = left * covered // covered.sum(-1, keepdim=True).clamp_min(1)
        return torch.cat([full[:, None], torch.minimum(quota, sizes[:, 1:])], 1)


def _keep_chosen(layout: TokenLayout, groups: Groups, stays: Tensor) -> Reduction:
    """Keep all text and the chosen vision tokens, and nothing else."""
    keep = layout.text.clone()
    keep.view(-1)[groups.index[stays]] = True
    return Reduction.from_keep(keep)
