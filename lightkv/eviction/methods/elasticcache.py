"""ElasticCache: evicted entries are averaged into the nearest kept one.

*Efficient Inference of Vision Instruction-Following Models with Elastic Cache*, Liu et al., ECCV
2024, arXiv 2407.18121.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.contract.registry import register
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import FixedSlot
from lightkv.eviction.parts.merges import AnchorMerge
from lightkv.eviction.parts.rankings import SelfAttention
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class NearestAnchor(AnchorMerge):
    """Average each evicted entry into the nearest kept one (ElasticCache, arXiv 2407.18121).

    Entries half way between two anchors go to the lower one; an anchor's new key and value are
    the plain mean of its bucket.

    Attributes:
        spare_protected: Protected entries stay as they are and receive nothing.
        lost_offset: Reproduce a bookkeeping error of the released code: the numbers of the evicted
            entries are too low by this many (the protected beginning), so an anchor may be merged
            into itself and the last evicted entries are lost. 0 for none. (There, a protected
            entry may also add to a bucket while staying as it is; here it only stays.)
    """

    spare_protected: bool = False
    lost_offset: int = 0

    def check(self, facts: ModelFacts) -> None:
        if self.lost_offset < 0:
            raise InvalidValueError("lost_offset", self.lost_offset, "at least 0")

    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        anchors = keep & ~protected[:, None] if self.spare_protected else keep
        evicted = layout.real[:, None] & ~keep
        if self.lost_offset:
            evicted = F.pad(evicted, (0, self.lost_offset))[..., self.lost_offset :]
        nearest = nearest_anchor(anchors)
        entries = torch.arange(keep.shape[-1], device=keep.device)
        joins = evicted & ~keep & layout.real[:, None]
        target = torch.where(keep, entries, torch.where(joins, nearest, -1))
        importance = 1 + (evicted & anchors).float()
        # (B, H_kv, N) as (B H_kv, N): each head merges for itself
        return Reduction.from_groups(target.flatten(0, 1), importance.flatten(0, 1))


def nearest_anchor(anchors: Tensor) -> Tensor:
    """Index (B, G, N) of the nearest marked entry, the lower one on ties; -1 if none is marked."""
    length = anchors.shape[-1]
    entries = torch.arange(length, device=anchors.device)
    far = 2 * length  # farther than any entry
    before = torch.where(anchors, entries, -far).cummax(-1).values
    after = torch.where(anchors, entries, far).flip(-1).cummin(-1).values.flip(-1)
    nearest = torch.where(after - entries < entries - before, after, before)
    return torch.where(anchors.any(-1, keepdim=True), nearest, -1)


@dataclass(frozen=True)
class SortedIndexAsRank(ByScore):
    """ElasticCache's released selection: kept entries have little to do with the scores.

    Of the M entries that are not protected, number i stays if the i-th entry in ascending order of
    scores has a number above the count to remove: indices of a sort are taken for ranks, and one
    entry more than asked is removed.
    """

    @property
    def unused(self) -> int:
        return 1

    def keep(self, score: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        index, valid = compact(layout.real & ~protected)
        scores = score.gather(1, index).masked_fill(~valid, -torch.inf)
        padding = (~valid).sum(1, keepdim=True)
        order = torch.argsort(scores, dim=1, stable=True) - padding
        removed = layout.prompt_lengths - budget
        stays = valid & (order > removed[:, None])
        return protected | torch.zeros_like(protected).scatter(1, index, stays)


@register("elasticcache")
def elasticcache(retention: float) -> Evicting:
    """ElasticCache: evicted entries are averaged into the nearest kept one."""
    return Evicting(
        Uniform(),
        SelfAttention(),
        ByScore(),
        retention,
        decode=FixedSlot(),
        merge=NearestAnchor(),
        protect_first=0,
        protect_last=0,
    )


@register("elasticcache-released")
def elasticcache_released(retention: float) -> Evicting:
    """ElasticCache as released: what is kept has little to do with the scores."""
    return Evicting(
        Uniform(),
        SelfAttention(),
        SortedIndexAsRank(),
        retention,
        decode=FixedSlot(),
        merge=NearestAnchor(spare_protected=True, lost_offset=1),
        protect_first=1,
    )
