"""Base of the methods that merge all vision tokens of a prompt in one window, stage by stage."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightkv.contract.checks import check_ratios, check_stages, require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.groups import Groups, gather_groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.merging.matching import Pairs, merge_counts, reduction
from lightkv.merging.partition import everywhere
from lightkv.merging.weighting import size_importance, uniform_importance


@dataclass(frozen=True)
class GlobalMerge(Reducer):
    """One window, a matching and a plain or size-weighted mean.

    Attributes:
        layers: 0-based layers after which a stage acts.
        ratios: Share of the vision tokens that merges away at each stage, at most 0.5.
        weighting: "uniform" averages a group plainly, "size" by the tokens its members stand for.
        positions: Survivors "keep" their rotary position or are renumbered ("reindex"); see
            :data:`~lightkv.contract.compressor.Positions`.
    """

    layers: tuple[int, ...]
    ratios: tuple[float, ...]
    weighting: Literal["uniform", "size"] = "uniform"
    positions: Positions = "keep"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """The field ``layers``."""
        return self.layers

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """None: the match looks at hidden states only."""
        return ()

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages that the model has no layers for, and ratios out of range."""
        check_stages(self.layers, facts)
        check_ratios(self.ratios, len(self.layers))

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image."""
        require_vision(layout)

    def reduce(self, view: LayerView) -> Reduction:
        """The reduction of the stage at ``view.layer``; a ratio of 0 changes nothing."""
        layout = view.layout
        if self.ratios[self.layers.index(view.layer)] == 0:
            return Reduction.identity(layout.batch_size, layout.length, layout.kind.device)
        return self.merged(view, self.pairs(view))

    def pairs(self, view: LayerView) -> Pairs:
        """Who merges with whom at ``view.layer``."""
        groups = gather_groups(everywhere(view.layout).labels())
        ratio = self.ratios[self.layers.index(view.layer)]
        merges = merge_counts(groups, ratio)
        return self.match(view, groups.to(view.hidden.device), merges)

    @abstractmethod
    def match(self, view: LayerView, groups: Groups, merges: NDArray[np.int64]) -> Pairs:
        """The pairs that merge; ``merges`` (G,), on the host, says how many in each group."""

    def merged(self, view: LayerView, pairs: Pairs) -> Reduction:
        """The reduction that merges these pairs, by default into their weighted mean."""
        sized = self.weighting == "size"
        importance = size_importance(view) if sized else uniform_importance(view)
        return reduction(view.layout, pairs, importance)
