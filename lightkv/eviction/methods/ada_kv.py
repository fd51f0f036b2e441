"""Ada-KV: the heads of a layer compete for its budget.

*Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference*,
Feng et al., NeurIPS 2025, arXiv 2407.11550.
"""

from __future__ import annotations

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.heads import AcrossHeads, AdaptiveForm
from lightkv.eviction.parts.rankings import ObservationWindow, Pooling


@register("ada-kv")
def ada_kv(
    retention: float,
    window: int = 32,
    kernel: int = 7,
    pooling: Pooling = "max",
    floor: float = 0.2,
    normalise: bool = True,
    form: AdaptiveForm = "exact",
) -> Evicting:
    """Ada-KV: SnapKV's scores, with the heads of a layer competing for its budget."""
    ranking = ObservationWindow(window, kernel, pooling, per_head=True)
    return Evicting(Uniform(), ranking, AcrossHeads(window, floor, normalise, form), retention)
