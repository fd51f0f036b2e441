"""TGV-KV: evict after prefill, grounded in the text.

*TGV-KV: Text-Grounded KV Eviction for Vision-Language Models*, Liu, Han, Zhang, Shao, Liu, Guan,
Wang, ICML 2026, arXiv 2606.03075.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.tgvkv_released import released
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.rankings import Ranking, TextScope
from lightkv.eviction.parts.selections import Selection, SystemText, TextFirst, VisionOnly
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted


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
        return released(retention, protect_first=protect_first, protect_last=protect_last)


@register("tgvkv", fixed=("protect_system",))
def tgvkv(
    retention: float, text_scope: TextScope = "question", system: SystemText = "kept"
) -> Evicting:
    """TGV-KV as in the paper: text-vision budgets, text-weighted ranking, text kept first."""
    ranking, selection = TextWeighted(text_scope), TextFirst(system)
    return TGVKV(ranking=ranking, selection=selection, retention=retention)


@register("tgvkv-vision-only", fixed=("protect_system",))
def tgvkv_vision_only(retention: float) -> Evicting:
    """TGV-KV on vision entries alone: all text stays, the ratio counts vision entries."""
    return Evicting(TextVision(), TextWeighted(), VisionOnly(), retention)
