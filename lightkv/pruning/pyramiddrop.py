"""PyramidDrop: fewer vision tokens at every quarter of the layers.

*PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction*, Xing et al., CVPR 2025, arXiv 2410.17247.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from lightkv.contract.checks import check_stages, require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.cost.token_counts import floor_share
from lightkv.errors import InvalidValueError
from lightkv.pruning.selection import top


@register("pyramiddrop")
@dataclass(frozen=True)
class PyramidDrop(Reducer):
    """At the input of a stage layer, keep all text and what the last token attends to most.

    The attention is the one that the layer itself would compute (FastV takes the layer before),
    mean over heads. Counts are shares of the prompt's first vision tokens, rounded down; all images
    of a prompt are one set. Ties: lowest index first.

    Attributes:
        layers: 0-based layers at whose input a stage acts; None is 8, 16, 24 of 32, or the quarters
            of another depth.
        ratios: Share of the first vision tokens that each stage leaves, never rising.
        positions: Survivors are renumbered ("reindex") as in the released code, or "keep" their
            position; see :data:`~lightkv.contract.compressor.Positions`.
    """

    layers: tuple[int, ...] | None = None
    ratios: tuple[float, ...] = (0.5, 0.25, 0.125)
    positions: Positions = "reindex"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """The layers before those of the field ``layers``."""
        return self.stage_layers_of(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """None of those that have run: see :meth:`looks_ahead`."""
        return ()

    def looks_ahead(self) -> bool:
        """True: the coming layer's attention ranks what enters it."""
        return True

    def needs_inputs(self) -> bool:
        """True: counts are shares of the prompt's first vision tokens."""
        return True

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages that the model has no layers for, and shares out of range or rising."""
        check_stages(self.stage_layers_of(facts.layers), facts)
        falling = all(a >= b for a, b in itertools.pairwise(self.ratios))
        stages = len(self.stage_layers_of(facts.layers))
        if (
            len(self.ratios) != stages
            or not falling
            or not all(0 < share <= 1 for share in self.ratios)
        ):
            allowed = f"{stages} numbers above 0 and at most 1, none larger than the one before"
            raise InvalidValueError("ratios", self.ratios, allowed)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image."""
        require_vision(layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune what enters the layer after ``view.layer``."""
        layout = view.layout
        share = self.ratios[self.stage_layers_of(view.layers).index(view.layer)]
        first = view.read_inputs().layout.vision.sum(1)
        counts = torch.tensor([floor_share(share, count) for count in first.tolist()])
        last = layout.position == layout.position.amax(1, keepdim=True)
        score = view.read_attention().column_sums(last & layout.real)
        return Reduction.from_keep(layout.text | top(score, layout.vision, counts.to(score.device)))

    def stage_layers_of(self, depth: int) -> tuple[int, ...]:
        """Layers after which a stage acts in a model of ``depth`` layers."""
        quarters = tuple(depth * part // 4 for part in (1, 2, 3))
        return tuple(layer - 1 for layer in (quarters if self.layers is None else self.layers))
