"""Rows of TGV-KV's ablations (Tables 1 and 5): its parts switched off or exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget, Proportional, Uniform
from lightkv.eviction.parts.rankings import (
    ObservationWindow,
    Random,
    Ranking,
    SelfAttention,
    TextScope,
    text_queries,
)
from lightkv.eviction.parts.selections import ByScore, Selection, SystemText, TextFirst, WindowFirst
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted


@dataclass(frozen=True)
class VisionVision(Proportional):
    """Budgets by the attention among vision tokens (TGV-KV, Table 1 a, "VV")."""

    needs_attention: ClassVar[bool] = True
    needs_vision: ClassVar[bool] = True

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        return view.read_attention().block_sum(view.layout.vision, view.layout.vision)


@dataclass(frozen=True)
class TextText(Proportional):
    """Budgets by the attention within the question (TGV-KV, Table 1 a, "TT")."""

    needs_attention: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def queries(self, layout: TokenLayout) -> Tensor:
        return layout.question

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        return view.read_attention().block_sum(view.layout.question, view.layout.question)


@dataclass(frozen=True)
class VisionPlusText(Ranking):
    """Vision entries by attention from vision, text entries by attention from text ("VV+TT")."""

    text_scope: TextScope = "question"
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def score(self, view: EntriesView) -> Tensor:
        layout, attention = view.layout, view.read_attention()
        text = attention.column_sums(text_queries(layout, self.text_scope))
        return torch.where(layout.vision, attention.column_sums(layout.vision), text)


@dataclass(frozen=True)
class CrossPlusText(Ranking):
    """Vision entries and text entries by attention from the question ("TV+TT")."""

    text_scope: TextScope = "question"
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def queries(self, layout: TokenLayout) -> Tensor | None:
        return None if self.text_scope == "all" else text_queries(layout, self.text_scope)

    def score(self, view: EntriesView) -> Tensor:
        layout, attention = view.layout, view.read_attention()
        cross = attention.column_sums(layout.question)
        if self.text_scope == "question":
            return cross
        text = attention.column_sums(text_queries(layout, self.text_scope))
        return torch.where(layout.vision, cross, text)


@dataclass(frozen=True)
class VisionFirst(TextFirst):
    """No vision leaves before all text has left (TGV-KV, Table 1 c, "evict text first").

    The system text is treated as :class:`TextFirst` says.
    """

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return layout.vision.long()


def _ablation(tvb: bool, twr: bool, tpr: bool) -> Callable[[float], Evicting]:
    budget: Budget = TextVision() if tvb else Uniform()
    ranking: Ranking = TextWeighted() if twr else SelfAttention()
    selection: Selection = TextFirst() if tpr else ByScore()

    def build(retention: float) -> Evicting:
        return Evicting(budget, ranking, selection, retention)

    on = [n for n, used in (("TVB", tvb), ("TWR", twr), ("TPR", tpr)) if used]
    build.__doc__ = f"Ablation of TGV-KV: {' + '.join(on) or 'no part'} (Table 5)."
    return build


for _tvb in (False, True):
    for _twr in (False, True):
        for _tpr in (False, True):
            register(f"tvb{_tvb:d}-twr{_twr:d}-tpr{_tpr:d}")(_ablation(_tvb, _twr, _tpr))


@register("budget-uniform")
def budget_uniform(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Uniform budget under the TV+TT ranking (Table 1 a)."""
    return Evicting(Uniform(), CrossPlusText(text_scope), ByScore(), retention)


@register("budget-vv")
def budget_vv(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Budgets by vision-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(VisionVision(), CrossPlusText(text_scope), ByScore(), retention)


@register("budget-tt")
def budget_tt(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Budgets by text-text attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextText(), CrossPlusText(text_scope), ByScore(), retention)


@register("budget-tv")
def budget_tv(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Budgets by text-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextVision(), CrossPlusText(text_scope), ByScore(), retention)


@register("rank-window")
def rank_window(retention: float) -> Evicting:
    """Ranking by an observation window under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), ObservationWindow(64), WindowFirst(64), retention)


@register("rank-self")
def rank_self(retention: float) -> Evicting:
    """Ranking by accumulated self-attention under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), SelfAttention(), ByScore(), retention)


@register("rank-vv-tt")
def rank_vv_tt(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Ranking by attention within each modality under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), VisionPlusText(text_scope), ByScore(), retention)


@register("rank-tv-tt")
def rank_tv_tt(retention: float, text_scope: TextScope = "question") -> Evicting:
    """Ranking by attention from the question under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), CrossPlusText(text_scope), ByScore(), retention)


@register("evict-vision-first", fixed=("protect_system",))
def evict_vision_first(retention: float, system: SystemText = "kept") -> Evicting:
    """Vision leaves before text, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), TextFirst(system), retention)


@register("evict-text-first", fixed=("protect_system",))
def evict_text_first(retention: float, system: SystemText = "kept") -> Evicting:
    """Text leaves before vision, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), VisionFirst(system), retention)
