"""VL-Cache: budgets by the sparsity of what later text attends to.

*VL-Cache: Sparsity and Modality-Aware KV Cache Compression for Vision-Language Model Inference
Acceleration*, Tu, Vashchilenko, Lu, Xu, ICLR 2025, arXiv 2410.23317. The authors released no code;
what "released" means here is the port that EffiVLM-Bench compares with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.allocation import Allocation, allot
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.protection import slots
from lightkv.eviction.parts.rankings import Ranking, group_heads
from lightkv.eviction.parts.selections import ByScore

RecentWindow = Literal["same", "own"]
CacheForm = Literal["exact", "released"]

_LEAST, _MOST = 0.01, 1.0  # of a layer's entries, as the port clamps


def after_vision(layout: TokenLayout) -> Tensor:
    """(B, N) bool: tokens after the last vision token, whose attention is read."""
    vision = layout.vision
    return layout.real & ~(vision.flip(1).cumsum(1).flip(1) > 0)


@dataclass(frozen=True)
class PostVision(Ranking):
    """Attention from the tokens after the last vision token (VL-Cache).

    Attributes:
        per_head: Score each KV head on its own instead of the mean over all heads.
    """

    per_head: bool = False
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def score(self, view: EntriesView) -> Tensor:
        rows = after_vision(view.layout)
        sums = view.read_attention().column_sums(rows, per_head=self.per_head)
        return group_heads(sums, view) if self.per_head else sums


@dataclass(frozen=True)
class Density(Budget):
    """Layers in proportion to how many entries the later text attends to (VL-Cache).

    An entry counts if its weight is at least ``threshold`` of the largest in its row. Of each
    layer's budget some entries go to the most recent ones.

    Attributes:
        adaptive: False gives every layer the same share.
        threshold: Share of a row's largest weight, in [0, 1].
        recent: Share of the budget for the most recent entries, in [0, 1).
        window: "same" gives every layer as many recent entries, "own" the share of its own budget.
        form: "exact" meets the total. "released" clamps each layer to [0.01, 1] of its entries and
            rounds down, and hands on nothing; with window "own" the recent entries come on top.
    """

    adaptive: bool = True
    threshold: float = 0.01
    recent: float = 0.1
    window: RecentWindow = "same"
    form: CacheForm = "exact"
    needs_attention: ClassVar[bool] = True
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    @property
    def unused(self) -> int:
        # Two numbers are rounded down, of which any method may lose one entry.
        return 1 if self.form == "released" else 0

    def check(self, facts: ModelFacts) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidValueError("threshold", self.threshold, "0 to 1")
        if not 0 <= self.recent < 1:
            raise InvalidValueError("recent", self.recent, "at least 0, below 1")

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        """(B,) share of the causal entries that count, mean over heads: one minus the sparsity."""
        layout, attention = view.layout, view.read_attention()
        if not self.adaptive:
            return torch.ones(layout.batch_size, device=attention.device)
        rows = after_vision(layout)
        counted = torch.zeros(layout.batch_size, device=attention.device)
        for index, valid in attention.blocks(rows):
            weights = attention.probabilities(index)
            large = weights >= self.threshold * weights.amax(-1, keepdim=True)
            seen = layout.real[:, None, None] & valid[:, None, :, None]
            # Keys that a query can't see have no weight, and would count where threshold is 0.
            place = torch.arange(layout.length, device=attention.device)
            seen = seen & (place <= index[:, None, :, None])
            counted += (large & seen).sum((1, 2, 3))
        causal = ((slots(layout) + 1) * rows).sum(1)
        return counted / (attention.heads * causal).clamp_min(1)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        density = torch.stack(list(strengths), 1).double()  # (B, L)
        # Layers may differ in length: a layer's claim is a share of its own entries.
        claim = density * nominal
        wishes = claim / claim.sum(1, keepdim=True) * nominal.sum(1, keepdim=True)
        if self.window == "own":
            return wishes
        return (1 - self.recent) * wishes + self.recent * nominal

    def decide(
        self,
        strengths: Sequence[Tensor],
        nominal: Tensor,
        lengths: Tensor,
        floors: Tensor,
        redistribute: bool,
    ) -> Allocation:
        wishes = self.allocate(strengths, nominal, lengths)
        made = allot(wishes, floors, lengths, redistribute)
        if self.form == "exact":
            of = nominal if self.window == "same" else made.entries.double()
            return replace(made, recent=self._recent(of).clamp_max(made.entries))
        # The port's arithmetic: shares in float32, cut off and not handed on.
        strength = torch.stack(list(strengths), 1)
        retention = (nominal / lengths).float()
        share = strength / strength.sum(1, keepdim=True) * retention * strength.shape[1]
        apart = self.recent if self.window == "same" else 0.0
        share = (share * (1 - apart)).clamp(_LEAST * (1 - apart), _MOST)
        recent = self._recent(nominal if self.window == "same" else share * lengths)
        best = (share * lengths).long().clamp_min(1)
        entries = torch.maximum(best + recent, floors).minimum(lengths)
        return Allocation(entries, wishes, (wishes / lengths).float(), entries, recent)

    def _recent(self, budget: Tensor) -> Tensor:
        """(B, L) int64: recent entries that are part of a budget (B, L)."""
        return (budget * self.recent).long().clamp_min(1)


@register("vl-cache")
def vl_cache(
    retention: float,
    per_head: bool = False,
    adaptive: bool = True,
    threshold: float = 0.01,
    recent: float = 0.1,
    window: RecentWindow = "same",
    form: CacheForm = "exact",
) -> Evicting:
    """VL-Cache: layers by how much the later text attends to, entries by its attention."""
    budget = Density(adaptive, threshold, recent, window, form)
    return Evicting(budget, PostVision(per_head), ByScore(), retention)
