"""Compressors that draw what they do, so that a check does not depend on any method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.compressor import Evictor, Observation, Positions, Reducer
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.view import EntriesView, LayerView, ModelFacts

_LONGEST = 2**16


def draw(layout: TokenLayout, seed: int) -> Tensor:
    """(B, N) uniform numbers; a token's number depends on its place in its own row only."""
    table = torch.rand(_LONGEST, generator=torch.Generator().manual_seed(seed))
    return table[layout.position.clamp_min(0).cpu()].to(layout.position.device)


@dataclass(frozen=True)
class DrawnEviction(Evictor):
    """Keep each entry of a layer with probability ``retention``, and the last token always."""

    retention: float = 0.5
    only_layer: int | None = None

    def check(self, facts: ModelFacts) -> None:
        return None

    def check_layout(self, layout: TokenLayout) -> None:
        return None

    def decode_policy(self) -> DecodePolicy:
        return Grow()

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def observe(self, view: EntriesView) -> Observation:
        score = draw(view.layout, 17 + view.layer)
        if self.only_layer not in (None, view.layer):
            score = torch.full_like(score, -1)
        return Observation(view.layout, score, torch.zeros(len(score), device=score.device))

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        kept = []
        for seen in observations:
            last = torch.zeros_like(seen.layout.real)
            last[:, -1] = True
            keep = ((seen.score < self.retention) | last) & seen.layout.real
            kept.append(Retention.from_keep(keep, keep.sum(-1).float()))
        return kept


@dataclass(frozen=True)
class DrawnMerges(Reducer):
    """Merge drawn pairs of neighbouring vision tokens after a layer and drop a few others."""

    layer: int = 1
    positions: Positions = "keep"

    def check(self, facts: ModelFacts) -> None:
        return None

    def check_layout(self, layout: TokenLayout) -> None:
        return None

    def position_rule(self) -> Positions:
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return (self.layer,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def reduce(self, view: LayerView) -> Reduction:
        layout = view.layout
        index = torch.arange(layout.length, device=layout.vision.device).expand_as(layout.position)
        chance = draw(layout, 1000 + view.layer)
        pair = torch.roll(layout.vision, -1, 1) & layout.vision & (index < layout.length - 1)
        # Every second token may go into the next, counted without padding and what is gone.
        order = layout.real.cumsum(1) - 1
        source = pair & (chance < 0.6) & (order % 2 == 0)
        dropped = layout.vision & (chance > 0.9) & ~torch.roll(source, 1, 1)
        target = torch.where(source, index + 1, index)
        target = torch.where(layout.real & ~dropped, target, -1)
        return Reduction.from_groups(target, chance + 0.1)
