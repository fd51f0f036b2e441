"""VisPruner: vision tokens the class token attends to most, and of the rest those least alike.

*Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs*,
Zhang et al., ICCV 2025, arXiv 2412.01818.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightkv.contract.checks import check_count
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.cost.token_counts import floor_share
from lightkv.errors import InvalidValueError
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.greedy import without_duplicates
from lightkv.pruning.selection import Pool, keep_only, needs_of, of_groups, pools, top


@register("vispruner")
@dataclass(frozen=True)
class VisPruner(BeforeDecoder):
    """Important tokens by class-token attention, diverse ones by removing duplicates.

    Attributes:
        tokens: Vision tokens that stay, per tile or image; all of a tile that has fewer.
        important: Share of them that is chosen by attention, rounded down.
        step: Duplicates removed per round.
        per: Each "tile" is pruned on its own, as published, or all tiles of an "image" together.
    """

    tokens: int = 64
    important: float = 0.5
    step: int = 8
    per: Pool = "tile"

    def needs_vision(self) -> frozenset[str]:
        """Class-token attention and features of the vision tower."""
        return frozenset({"cls_attention", "features"} | needs_of(self.per))

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("tokens", self.tokens)
        check_count("step", self.step)
        if not 0 <= self.important <= 1:
            raise InvalidValueError("important", self.important, "from 0 to 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image and images of fewer tokens than stay."""
        super().check_layout(layout)
        require_tokens("tokens", self.tokens, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = pools(view, self.per)
        attention = of_groups(view.read_vision("cls_attention"), groups)
        features = of_groups(view.read_vision("features"), groups).float()
        first = torch.full_like(groups.counts, floor_share(self.important, self.tokens))
        important = top(attention, groups.valid, first)
        diverse = without_duplicates(
            cosine(features, features),
            attention,
            groups.valid & ~important,
            self.tokens - first,
            self.step,
        )
        return keep_only(view.layout, groups, important | diverse)
