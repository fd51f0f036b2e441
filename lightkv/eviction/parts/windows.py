"""Moments of the last queries' attention, and the ranking by them (CAKE)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.eviction.parts.protection import ends
from lightkv.eviction.parts.rankings import (
    Ranking,
    check_pooling,
    check_window,
    group_heads,
    pool_outside,
)


@dataclass(frozen=True)
class WindowIndicator(Ranking):
    """Mean plus gamma times variance of the last queries' attention (CAKE, arXiv 2503.12491).

    Attributes:
        window: Number of last queries, at least 2.
        gamma: Weight of the variance.
        kernel: Odd width of the average pooling.
    """

    window: int = 32
    gamma: float = 200.0
    kernel: int = 5

    def check(self, facts: ModelFacts) -> None:
        check_window(self.window, 2)
        check_pooling(self.kernel, "avg")

    def score(self, view: LayerView) -> Tensor:
        window = ends(view.layout, 0, self.window)
        mean, variance = window_moments(view, window)
        scores = group_heads(mean + self.gamma * variance, view)
        return pool_outside(scores, view, window, self.kernel, "avg")


def window_moments(view: LayerView, window: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (B, H, N) float32 of the attention over the window's queries."""
    attention = view.read_attention()
    shape = (attention.batch_size, attention.heads, attention.length)
    total = torch.zeros(shape, dtype=torch.float64, device=attention.device)
    squares = torch.zeros_like(total)
    for index, valid in attention.blocks(window):
        rows = attention.probabilities(index).double() * valid[:, None, :, None]
        total += rows.sum(2)
        squares += rows.square().sum(2)
    count = window.sum(1)[:, None, None]
    mean = total / count
    variance = (squares - total * mean).clamp_min(0) / (count - 1).clamp_min(1)
    return mean.float(), variance.float()
