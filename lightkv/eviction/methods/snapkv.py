"""SnapKV: what the last queries attend to.

*SnapKV: LLM Knows What You are Looking for Before Generation*, Li et al., NeurIPS 2024, arXiv
2404.14469.
"""

from __future__ import annotations

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.rankings import ObservationWindow, Pooling
from lightkv.eviction.parts.selections import BudgetLeWindow, WindowFirst


@register("snapkv")
def snapkv(
    retention: float,
    window: int = 64,
    kernel: int = 5,
    pooling: Pooling = "avg",
    per_head: bool = False,
    budget_le_window: BudgetLeWindow = "truncate_window",
) -> Evicting:
    """SnapKV: attention from the last queries, pooled; the window itself is kept."""
    ranking = ObservationWindow(window, kernel, pooling, per_head)
    return Evicting(Uniform(), ranking, WindowFirst(window, budget_le_window), retention)


@register("snapkv-window-only")
def snapkv_window_only(retention: float, window: int = 64) -> Evicting:
    """SnapKV that keeps its whole window even beyond the budget, and nothing else for sure."""
    ranking, selection = ObservationWindow(window), WindowFirst(window, "window_only")
    return Evicting(Uniform(), ranking, selection, retention, protect_first=0, protect_last=0)
