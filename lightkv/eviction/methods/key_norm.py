"""Keys of small norm are kept.

*A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression*, Devoto et al., EMNLP
2024, arXiv 2406.11430.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView
from lightkv.errors import UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.protection import no_position
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class KeyNorm(Ranking):
    """Keys of small norm first (Devoto et al., arXiv 2406.11430), mean over the KV heads."""

    needs_attention: ClassVar[bool] = False
    needs_entries: ClassVar[bool] = True

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def score(self, view: EntriesView) -> Tensor:
        if view.keys is None:
            raise UnsupportedError(f"layer {view.layer} has no keys to rank by")
        return -view.keys.float().square().sum(-1).sqrt().mean(1)


@register("key-norm")
def key_norm(retention: float) -> Evicting:
    """Keys of small norm are kept."""
    return Evicting(Uniform(), KeyNorm(), ByScore(), retention)
