"""DivPrune: the vision tokens that lie farthest apart.

*DivPrune: Diversity-based Visual Token Pruning for LMMs*, Alvar et al., CVPR 2025,
arXiv 2503.02175.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightkv.contract.checks import check_share
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.greedy import farthest_points
from lightkv.pruning.selection import keep_only, of_groups, row_groups


@register("divprune", by_share=lambda share: DivPrune(kept=share))
@dataclass(frozen=True)
class DivPrune(BeforeDecoder):
    """Max-min diversity on the projected embeddings: greedily add the token farthest from all.

    All vision tokens of a prompt form one set, tiles and line breaks together, as in the released
    code.

    Attributes:
        kept: Share of the vision tokens that stays, rounded half to even.
    """

    kept: float = 0.098

    def check(self, facts: ModelFacts) -> None:
        """Refuse a share out of range."""
        check_share("kept", self.kept)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = row_groups(view.layout)
        counts = torch.round(groups.counts.double() * self.kept).long()
        states = of_groups(view.hidden, groups)
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        distance = 1 - cosine(states, states)
        return keep_only(view.layout, groups, farthest_points(distance, groups.valid, counts))
