"""Compressors that do exactly what a test says, to drive the graph without a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightkv.contract.compressor import Evictor, Observation, Positions, Reducer
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.view import LayerView, ModelFacts


def draw(layout: TokenLayout, seed: int) -> Tensor:
    """(B, N) uniform numbers; each token's number depends on its place in its row only."""
    table = torch.rand(512, generator=torch.Generator().manual_seed(seed))
    return table[layout.position.clamp_min(0).cpu()]


@dataclass(frozen=True)
class KeepSome(Evictor):
    """Keep a random share of each layer; the last token always."""

    retention: float = 0.5
    per_head: bool = False
    decode: DecodePolicy = field(default_factory=Grow)
    skip_layers: tuple[int, ...] = ()

    def check(self, facts: ModelFacts) -> None:
        pass

    def check_layout(self, layout: TokenLayout) -> None:
        pass

    def decode_policy(self) -> DecodePolicy:
        return self.decode

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def observe(self, view: LayerView) -> Observation:
        score = draw(view.layout, 17 + view.layer)
        assert view.keys is not None
        if self.per_head:
            score = torch.stack(
                [draw(view.layout, 100 * h + view.layer) for h in range(view.keys.shape[1])], 1
            )
        return Observation(view.layout, score, torch.full((score.shape[0],), float(view.layer)))

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        kept = []
        for seen in observations:
            real = seen.layout.real
            last = torch.zeros_like(real)
            last[:, -1] = True
            threshold = 1.0 if int(seen.strength[0]) in self.skip_layers else self.retention
            if self.per_head:
                real, last = real[:, None], last[:, None]
            keep = ((seen.score < threshold) | last) & real
            requested = keep.sum(-1).float().reshape(len(keep), -1).mean(1)
            kept.append(Retention.from_keep(keep, requested))
        return kept


@dataclass(frozen=True)
class MergeSome(Reducer):
    """Merge random pairs of neighbouring vision tokens and drop a few others."""

    layers: tuple[int, ...] = (1,)
    positions: Positions = "keep"
    seed: int = 0

    def check(self, facts: ModelFacts) -> None:
        pass

    def check_layout(self, layout: TokenLayout) -> None:
        pass

    def position_rule(self) -> Positions:
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return self.layers

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def reduce(self, view: LayerView) -> Reduction:
        layout = view.layout
        slot = torch.arange(layout.length).expand(layout.batch_size, -1)
        chance = draw(layout, 1000 + view.layer + self.seed)
        after = torch.roll(layout.vision, -1, 1) & layout.vision & (slot < layout.length - 1)
        source = after & (chance < 0.5) & (layout.position % 2 == 0)
        dropped = layout.vision & (chance > 0.9) & ~torch.roll(source, 1, 1)
        target = torch.where(source, slot + 1, slot)
        target = torch.where(layout.real & ~dropped, target, -1)
        return Reduction.from_groups(target, chance + 0.1)


@dataclass(frozen=True)
class KeepNewest(KeepSome):
    """Keep equally many entries of every row, other numbers in other layers: nothing is ragged."""

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        kept = []
        for layer, seen in enumerate(observations):
            real = seen.layout.real
            keep = real & (seen.layout.position >= real.sum(1, keepdim=True) - 8 - layer)
            kept.append(Retention.from_keep(keep, keep.sum(1).float()))
        return kept
