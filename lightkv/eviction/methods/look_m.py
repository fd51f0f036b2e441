"""LOOK-M: text first, the rest merged into kept entries.

*LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal Long-Context Inference*, Wan
et al., Findings of EMNLP 2024, arXiv 2406.18139.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.attention import BLOCK_NUMBERS
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.contract.registry import register
from lightkv.errors import UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.merges import AnchorMerge
from lightkv.eviction.parts.rankings import SelfAttention
from lightkv.eviction.parts.selections import Selection, TextFirst, WithRecent

MergeKind = Literal["pivot", "average", "weighted"]


@dataclass(frozen=True)
class PivotMerge(AnchorMerge):
    """Merge each evicted entry into the kept one with the most similar key (LOOK-M, 2406.18139).

    Values follow their keys.

    Attributes:
        kind: "pivot": an evicted key is first averaged with its kept one. "average": plain mean.
            "weighted": each evicted key is multiplied by its cosine to the kept one, and the sum
            divided by the number of keys, so that a slot's weights sum to less than 1.
    """

    kind: MergeKind = "pivot"
    needs_keys: ClassVar[bool] = True

    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        if keys is None:
            raise UnsupportedError(f"{type(self).__name__} needs the keys of the layer")
        batch, groups, length = keep.shape
        # Heads that share their entries are compared by their keys side by side.
        flat = keys.float().reshape(batch * groups, -1, length, keys.shape[3])
        flat = flat.transpose(1, 2).flatten(2)
        kept = keep.flatten(0, 1)
        target, cosine = most_similar(F.normalize(flat, dim=-1), kept)
        evicted = (layout.real[:, None] & ~keep).flatten(0, 1)
        target = torch.where(kept | evicted, target, -1)
        importance = torch.ones_like(target, dtype=torch.float32)
        if self.kind == "pivot":
            # (k_c + sum of (k_e + k_c) / 2) / (1 + count): half an evicted key, else its anchor.
            joined = torch.zeros_like(importance)
            joined.scatter_add_(1, target.clamp_min(0), evicted.float() / 2)
            importance = torch.where(evicted, 0.5, 1 + joined)
        merged = Reduction.from_groups(target, importance)
        if self.kind == "weighted":
            # (k_c + sum of cos k_e) / (1 + count): the plain mean's weights, times the cosine.
            return replace(merged, weight=merged.weight * torch.where(evicted, cosine, 1))
        return merged


def most_similar(unit: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Index (R, N) of the kept entry of highest cosine, and that cosine.

    Kept entries map to themselves.

    Of equal cosines the first entry's counts; near-ties fall as their rounding does.

    Args:
        unit: (R, N, D), normalised.
        kept: (R, N) bool.
    """
    rows, length, _ = unit.shape
    index, valid = compact(kept)
    anchors = unit.gather(1, index[..., None].expand(-1, -1, unit.shape[2]))  # (R, K, D)
    size = max(1, BLOCK_NUMBERS // max(1, rows * index.shape[1]))
    best, values = [], []
    for start in range(0, length, size):
        cosine = unit[:, start : start + size] @ anchors.transpose(1, 2)
        cosine = cosine.masked_fill(~valid[:, None], -torch.inf)
        value, place = cosine.max(2)
        best.append(index.gather(1, place))
        values.append(value)
    entries = torch.arange(length, device=kept.device)
    return torch.where(kept, entries, torch.cat(best, 1)), torch.cat(values, 1)


@dataclass(frozen=True)
class RecentAndText(WithRecent):
    """Recent entries and all text stay, whatever the budget (LOOK-M's published code).

    What they leave of it goes to the highest scores; where they are more, the budget is exceeded.
    """

    rule: Selection = TextFirst("text")  # noqa: RUF009

    def keep(self, score: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        best = super().keep(score, layout, budget, protected)
        always = self._always(layout, budget)
        return best | (always if score.dim() == 2 else always[:, None])

    def least(self, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        return (self._always(layout, budget) | protected).sum(1)

    def _always(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return layout.text | self.recent(layout, budget)


@register("look-m")
def look_m(
    retention: float,
    recent: float = 0.5,
    keep_all_text: bool = False,
    merging: MergeKind = "pivot",
) -> Evicting:
    """LOOK-M: a recent window, then text, the rest merged into kept entries by similarity."""
    selection = (RecentAndText if keep_all_text else WithRecent)(TextFirst("text"), recent)
    ranking = SelfAttention(per_head=True)
    return Evicting(Uniform(), ranking, selection, retention, merge=PivotMerge(merging))
