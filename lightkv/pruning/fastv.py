"""FastV: drop the vision tokens that the last token attends to least, once, after two layers.

*An Image is Worth 1/2 Tokens After Layer 2*, Chen et al., ECCV 2024, arXiv 2403.06764.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightkv.contract.checks import require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.pruning.selection import top


@register("fastv", by_share=lambda share: FastV(removed=1 - share))
@dataclass(frozen=True)
class FastV(Reducer):
    """Keep the vision tokens that the last prompt token attends to most, and all text.

    The number kept is rounded half to even. The set is chosen once, in prefill.

    Attributes:
        layer: K; layers 0 to K - 1 see and cache everything, and the attention of layer K - 1,
            mean over heads, decides.
        removed: R, share of the vision tokens that is dropped.
        positions: Survivors "keep" their rotary position (the method's own choice) or are
            renumbered ("reindex"); see :data:`~lightkv.contract.compressor.Positions`.
    """

    layer: int = 2
    removed: float = 0.5
    positions: Positions = "keep"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """After layer K - 1."""
        return (self.layer - 1,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layer K - 1."""
        return (self.layer - 1,)

    def check(self, facts: ModelFacts) -> None:
        """Refuse a layer that the model does not have and a share out of range."""
        if not 1 <= self.layer < facts.layers:
            raise InvalidValueError("layer", self.layer, f"from 1 to {facts.layers - 1}")
        if not 0 <= self.removed < 1:
            raise InvalidValueError("removed", self.removed, "at least 0 and below 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image."""
        require_vision(layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune; nothing removed changes nothing."""
        layout = view.layout
        if self.removed == 0:
            return Reduction.identity(layout.batch_size, layout.length, layout.kind.device)
        last = layout.position == layout.position.amax(1, keepdim=True)
        score = view.read_attention().column_sums(last & layout.real)
        counts = torch.round(layout.vision.sum(1).double() * (1 - self.removed)).long()
        kept = top(score, layout.vision, counts)
        return Reduction.from_keep(layout.real & (kept | ~layout.vision))
