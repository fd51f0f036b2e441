"""Every evictor by name: a budget, a ranking and a retention rule, in one line each.

Here are TGV-KV and the rows of its ablations; :mod:`~lightkv.eviction.baselines` has the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightkv.eviction import baselines
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget, TextText, TextVision, Uniform, VisionVision
from lightkv.eviction.parts.decoding import EvictOne
from lightkv.eviction.parts.rankings import (
    CrossPlusText,
    ObservationWindow,
    Random,
    Ranking,
    SelfAttention,
    TextWeighted,
    VisionPlusText,
)
from lightkv.eviction.parts.selections import (
    ByScore,
    Selection,
    TextFirst,
    VisionFirst,
    VisionOnly,
    WindowFirst,
)
from lightkv.eviction.registry import METHODS, method, methods, register
from lightkv.eviction.released import ReleasedTextVision, ReleasedTGVKV


@dataclass(frozen=True)
class TGVKV(Evicting):
    """TGV-KV (Liu et al., ICML 2026, arXiv 2606.03075): budgets, ranking and retention by text.

    The default is the paper; :meth:`released` is the published code.
    """

    budget: Budget = TextVision()  # noqa: RUF009
    ranking: Ranking = TextWeighted()  # noqa: RUF009
    selection: Selection = TextFirst()  # noqa: RUF009
    retention: float = 0.05

    @staticmethod
    def released(
        retention: float = 0.05, *, protect_first: int = 4, protect_last: int = 1
    ) -> Evicting:
        """The published code, case by case: its ranking, arithmetic and decoding."""
        return ReleasedTGVKV(
            ReleasedTextVision(),
            TextWeighted(text_scope="all", normalise=False),
            TextFirst(),
            retention,
            decode=EvictOne(protect_first),
            protect_first=protect_first,
            protect_last=protect_last,
            redistribute=False,
        )


@register("tgvkv")
def tgvkv(retention: float) -> Evicting:
    """TGV-KV as in the paper: text-vision budgets, text-weighted ranking, text kept first."""
    return TGVKV(retention=retention)


@register("tgvkv-released")
def tgvkv_released(retention: float) -> Evicting:
    """TGV-KV as in the released code, which also evicts one entry per decode step."""
    return TGVKV.released(retention)


@register("tgvkv-vision-only")
def tgvkv_vision_only(retention: float) -> Evicting:
    """TGV-KV on vision entries alone: all text stays, the ratio counts vision entries."""
    return Evicting(TextVision(), TextWeighted(), VisionOnly(), retention)


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
def budget_uniform(retention: float) -> Evicting:
    """Uniform budget under the TV+TT ranking (Table 1 a)."""
    return Evicting(Uniform(), CrossPlusText(), ByScore(), retention)


@register("budget-vv")
def budget_vv(retention: float) -> Evicting:
    """Budgets by vision-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(VisionVision(), CrossPlusText(), ByScore(), retention)


@register("budget-tt")
def budget_tt(retention: float) -> Evicting:
    """Budgets by text-text attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextText(), CrossPlusText(), ByScore(), retention)


@register("budget-tv")
def budget_tv(retention: float) -> Evicting:
    """Budgets by text-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextVision(), CrossPlusText(), ByScore(), retention)


@register("rank-window")
def rank_window(retention: float) -> Evicting:
    """Ranking by an observation window under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), ObservationWindow(64), WindowFirst(64), retention)


@register("rank-self")
def rank_self(retention: float) -> Evicting:
    """Ranking by accumulated self-attention under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), SelfAttention(), ByScore(), retention)


@register("rank-vv-tt")
def rank_vv_tt(retention: float) -> Evicting:
    """Ranking by attention within each modality under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), VisionPlusText(), ByScore(), retention)


@register("rank-tv-tt")
def rank_tv_tt(retention: float) -> Evicting:
    """Ranking by attention from the question under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), CrossPlusText(), ByScore(), retention)


@register("evict-vision-first")
def evict_vision_first(retention: float) -> Evicting:
    """Vision leaves before text, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), TextFirst(), retention)


@register("evict-text-first")
def evict_text_first(retention: float) -> Evicting:
    """Text leaves before vision, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), VisionFirst(), retention)


__all__ = ["METHODS", "TGVKV", "baselines", "method", "methods", "register"]
