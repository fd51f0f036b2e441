"""DivPrune: the vision tokens that lie farthest apart.

*DivPrune: Diversity-based Visual Token Pruning for LMMs*, Alvar et al., CVPR 2025,
arXiv 2503.02175.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.checks import check_share
from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.selection import first_argmax, keep_only, of_groups, row_groups


@register("divprune", by_share=lambda share: DivPrune(kept=share))
@dataclass(frozen=True)
class DivPrune(BeforeDecoder):
    """Max-min diversity on the projected embeddings: greedily add the token farthest from all.

    All vision tokens of a prompt form one set, as in the released code.

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
        chosen = farthest_points(distance, groups.valid, counts)
        return keep_only(view.layout, groups, chosen)


def farthest_points(distance: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Greedy solution of the max-min diversity problem.

    The first pick is the point whose nearest other is farthest; then, again and again, the one
    whose nearest pick is farthest.

    Args:
        distance: (G, M, M).
        valid: (G, M) bool.
        counts: (G,) int64, points to pick.

    Returns:
        (G, M) bool.
    """
    size = distance.shape[1]
    own = torch.eye(size, dtype=torch.bool, device=distance.device)
    others = distance.masked_fill(own | ~valid[:, None], torch.inf)
    # A point without any other is infinitely far from it, which is as far as can be.
    nearest = others.amin(-1)
    groups = torch.arange(len(distance), device=distance.device)
    chosen = torch.zeros_like(valid)
    for number in range(int(counts.max())):
        pick = first_argmax(nearest.masked_fill(chosen | ~valid, -torch.inf))
        active = number < counts
        chosen[groups, pick] |= active
        reach = distance[groups, pick]
        nearest = reach if number == 0 else torch.minimum(nearest, reach)
    return chosen
