"""H2O: entries that have collected the most attention.

*H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models*, Zhang et
al., NeurIPS 2023, arXiv 2306.14048.
"""

from __future__ import annotations

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import HoldBudget
from lightkv.eviction.parts.rankings import SelfAttention
from lightkv.eviction.parts.selections import ByScore, WithRecent


@register("h2o")
def h2o(retention: float, per_head: bool = False) -> Evicting:
    """H2O without a recent window, as TGV-KV compares it: accumulated attention alone."""
    decode = HoldBudget("score")
    return Evicting(Uniform(), SelfAttention(per_head), ByScore(), retention, decode=decode)


@register("h2o-recent")
def h2o_recent(retention: float, per_head: bool = False) -> Evicting:
    """H2O: half of the budget for accumulated attention, half for the most recent entries."""
    decode = HoldBudget("score", protect_first=0, recent_share=0.5)
    selection = WithRecent(ByScore(), 0.5)
    return Evicting(
        Uniform(), SelfAttention(per_head), selection, retention, decode=decode, protect_first=0
    )
