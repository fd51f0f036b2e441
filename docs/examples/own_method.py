"""An evictor of one's own: entries whose values are large stay."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightkv.contract.registry import register
from lightkv.contract.view import LayerView
from lightkv.errors import UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class ValueNorm(Ranking):
    """Norm of an entry's value, mean over the KV heads."""

    needs_attention: ClassVar[bool] = False

    def score(self, view: LayerView) -> Tensor:
        """(B, N) float32; values are (B, H_kv, N, d)."""
        if view.values is None:
            raise UnsupportedError(f"layer {view.layer} has no values to rank by")
        return view.values.float().norm(dim=-1).mean(1)


@register("value-norm")
def value_norm(retention: float) -> Evicting:
    """Entries whose values are large stay."""
    return Evicting(Uniform(), ValueNorm(), ByScore(), retention)
