"""TOVA: what the newest token attends to.

*Transformers are Multi-State RNNs*, Oren, Hassid, Yarden, Adi, Schwartz, EMNLP 2024, arXiv
2401.06104.
"""

from __future__ import annotations

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import HoldBudget
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.eviction.parts.selections import WindowFirst


@register("tova")
def tova(retention: float) -> Evicting:
    """TOVA: entries by the newest token's attention, mean over all heads, while decoding too."""
    ranking = ObservationWindow(1, 1, "none")
    decode = HoldBudget("attention")
    return Evicting(Uniform(), ranking, WindowFirst(1), retention, decode=decode)
