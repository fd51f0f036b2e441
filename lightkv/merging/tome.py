"""ToMe (P): bipartite merging of vision tokens in the decoder, one window, no guidance.

*Token Merging: Your ViT But Faster*, Bolya et al., ICLR 2023, arXiv 2210.09461, in the form that
LightKV compares with: on hidden states, after the same stage layers and by the same ratios.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightkv.contract.groups import Groups
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView
from lightkv.merging.matching import Pairs, match
from lightkv.merging.staged import GlobalMerge


@register("tome")
@dataclass(frozen=True)
class ToMe(GlobalMerge):
    """Every other vision token proposes to merge into the most similar one of the rest.

    Attributes: see :class:`~lightkv.merging.staged.GlobalMerge`. The survivors stay in sequence
    order, a merged token at its target's place. Ties: lowest index first.
    """

    def match(self, view: LayerView, groups: Groups, merges: NDArray[np.int64]) -> Pairs:
        """The alternate split; the most similar proposals merge."""
        return match(view.hidden, groups, merges)
