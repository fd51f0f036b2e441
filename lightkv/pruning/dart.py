"""DART: a few pivots, and for each of them the vision tokens that are least like it.

*Stop Looking for "Important Tokens" in Multimodal Language Models: Duplication Matters More*, Wen
et al., EMNLP 2025, arXiv 2502.11494.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_count, require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.cost.token_counts import as_written
from lightkv.errors import InputError, InvalidValueError
from lightkv.pruning.greedy import picks_in_turn
from lightkv.pruning.selection import top


@register("dart", by_share=lambda share: DART(removed=1 - share))
@dataclass(frozen=True)
class DART(Reducer):
    """Pivots of large keys pick, in turn, the vision tokens of lowest cosine to them.

    Pivots are the vision tokens and the tokens after the last image whose cached keys (of layer
    K - 1, all heads side by side) have the largest L1 norm. Each takes equally many of the vision
    tokens that are still free, by the cosine of hidden states after the model's final norm. Vision
    pivots and picks stay: of 576 tokens at the default 4 + 8 x 15 = 124, not the 128 of the share.
    All images of a prompt are one set. Ties: lowest index first.

    Attributes:
        layer: K; layers 0 to K - 1 see and cache everything.
        removed: Share of the vision tokens that sets the picks per pivot, rounded down.
        vision_pivots, text_pivots: How many there are.
        order: In which order pivots pick, by number: 0 is the vision pivot of the largest norm,
            ``vision_pivots`` the text pivot of the largest. None is that very order; the released
            code's is that of a hash table.
        counting: "exact" on the share as it was written, or the "float64" product that the released
            code rounds down (40 x (1 - 0.8) / 2 gives 3, not 4).
        positions: Survivors "keep" their rotary position (the method's own choice) or are
            renumbered; see :data:`~lightkv.contract.compressor.Positions`.
    """

    layer: int = 2
    removed: float = 0.7778
    vision_pivots: int = 4
    text_pivots: int = 4
    order: tuple[int, ...] | None = None
    counting: Literal["exact", "float64"] = "exact"
    positions: Positions = "keep"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """After layer K - 1."""
        return (self.layer - 1,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """None: keys and hidden states decide."""
        return ()

    def check(self, facts: ModelFacts) -> None:
        """Refuse a layer that the model does not have, and values out of range."""
        if not 1 <= self.layer < facts.layers:
            raise InvalidValueError("layer", self.layer, f"from 1 to {facts.layers - 1}")
        if not 0 <= self.removed < 1:
            raise InvalidValueError("removed", self.removed, "at least 0 and below 1")
        check_count("vision_pivots", self.vision_pivots)
        check_count("text_pivots", self.text_pivots, 0)
        pivots = range(self.vision_pivots + self.text_pivots)
        if self.order is not None and sorted(self.order) != list(pivots):
            raise InvalidValueError("order", self.order, f"each of 0 to {len(pivots) - 1} once")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse prompts with fewer vision or later text tokens than there are pivots."""
        require_vision(layout)
        fewest = int(layout.vision.sum(1).min())
        if fewest < self.vision_pivots:
            raise InvalidValueError(
                "vision_pivots", self.vision_pivots, f"at most {fewest}, the fewest vision tokens"
            )
        words = int(_later_text(layout).sum(1).min())
        if words < self.text_pivots:
            raise InputError(
                f"DART takes {self.text_pivots} pivots of the text after the last image; a prompt "
                f"has {words} such tokens: lower text_pivots, or ask after the image"
            )

    def reduce(self, view: LayerView) -> Reduction:
        """Prune.

        Raises:
            UnsupportedError: If the model has no final norm.
        """
        layout = view.layout
        seen = self._pivots(view, layout.vision, self.vision_pivots)
        pivots = torch.cat([seen, self._pivots(view, _later_text(layout), self.text_pivots)], 1)
        if self.order is not None:
            pivots = pivots[:, list(self.order)]
        states = view.normed()
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        rows = torch.arange(len(states), device=states.device)[:, None]
        stays = torch.zeros_like(layout.vision).index_put((rows, seen), layout.real.any())
        quota = [self._quota(tokens) for tokens in layout.vision.sum(1).tolist()]
        similarity = cosine(states[rows, pivots], states)  # (B, pivots, N)
        stays = stays | picks_in_turn(-similarity, layout.vision & ~stays, quota)
        return Reduction.from_keep(layout.text | stays)

    def _quota(self, tokens: int) -> int:
        """Picks per pivot in a prompt of ``tokens`` vision tokens."""
        pivots = self.vision_pivots + self.text_pivots
        if self.counting == "float64":
            return int(tokens * (1 - self.removed) / pivots)
        return math.floor((1 - as_written(self.removed)) * tokens / pivots)

    def _pivots(self, view: LayerView, candidates: Tensor, count: int) -> Tensor:
        """(B, count) int64: the candidates of the largest keys, by falling norm."""
        if view.keys is None:
            raise RuntimeError(f"layer {view.layer} has no cached keys")
        norm = view.keys.abs().sum((1, 3), dtype=torch.float32)  # (B, N)
        pivots = top(norm, candidates, torch.full_like(norm[:, 0], count, dtype=torch.int64))
        index, _ = compact(pivots)
        by_norm = torch.argsort(norm.gather(1, index), dim=-1, descending=True, stable=True)
        return index.gather(1, by_norm)


def _later_text(layout: TokenLayout) -> Tensor:
    """(B, N) bool: text after the last vision token."""
    after = layout.vision.long().flip(1).cumsum(1).flip(1) == 0
    return layout.text & after
