"""StreamingLLM: attention sinks and a sliding window.

*Efficient Streaming Language Models with Attention Sinks*, Xiao et al., ICLR 2024, arXiv
2309.17453.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import HoldBudget
from lightkv.eviction.parts.protection import no_position
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class Recency(Ranking):
    """Later entries before earlier ones (StreamingLLM, arXiv 2309.17453)."""

    needs_attention: ClassVar[bool] = False

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def score(self, view: EntriesView) -> Tensor:
        return view.layout.position.float()


@register("streamingllm", fixed=("protect_first", "decode"))
def streamingllm(retention: float, sinks: int = 4, capacity: int | None = None) -> Evicting:
    """StreamingLLM: the first entries and the most recent ones, a sliding window in decode."""
    decode = HoldBudget("oldest", protect_first=sinks, capacity=capacity)
    return Evicting(Uniform(), Recency(), ByScore(), retention, decode=decode, protect_first=sinks)


@register("streamingllm-reindexed", fixed=("protect_first", "decode", "positions"))
def streamingllm_reindexed(
    retention: float, sinks: int = 4, capacity: int | None = None
) -> Evicting:
    """StreamingLLM as its own code runs it: entries sit at their place in the cache."""
    return replace(streamingllm(retention, sinks, capacity), positions="reindex")
