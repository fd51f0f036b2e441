"""KeyDiff: keys unlike the mean key are kept.

*KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in
Resource-Constrained Environments*, Park et al., arXiv 2504.15364. The paper works block by block;
here, as in kvpress, the whole prompt is one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView
from lightkv.errors import UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class KeyDifference(Ranking):
    """Minus the cosine of each key to the mean of the unit keys (KeyDiff, arXiv 2504.15364).

    Attributes:
        per_head: Score each KV head on its own, as published, instead of the mean over the heads.
    """

    per_head: bool = True
    needs_attention: ClassVar[bool] = False

    def score(self, view: EntriesView) -> Tensor:
        unit, mean = unit_keys(view)
        score = -F.cosine_similarity(unit, mean, dim=3)
        return score if self.per_head else score.mean(1)


def unit_keys(view: EntriesView) -> tuple[Tensor, Tensor]:
    """Unit keys (B, H_kv, N, d) float32 of a layer, and their mean (B, H_kv, 1, d), padding apart.

    Keys are those of the cache, after the rotary embedding.

    Raises:
        UnsupportedError: If the view has no keys.
    """
    if view.keys is None:
        raise UnsupportedError(f"layer {view.layer} has no keys to rank by")
    real = view.layout.real[:, None, :, None]
    unit = F.normalize(view.keys.float(), dim=3) * real
    return unit, unit.sum(2, keepdim=True) / real.sum(2, keepdim=True)


@register("keydiff")
def keydiff(retention: float, per_head: bool = True) -> Evicting:
    """KeyDiff: keys unlike the mean key are kept, whatever they mean."""
    return Evicting(Uniform(), KeyDifference(per_head), ByScore(), retention)
