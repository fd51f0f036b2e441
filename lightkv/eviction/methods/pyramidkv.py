"""PyramidKV: SnapKV with budgets that fall with depth.

*PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling*, Cai et al.,
arXiv 2406.02069.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.registry import register
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget, no_strength
from lightkv.eviction.parts.rankings import ObservationWindow, check_window
from lightkv.eviction.parts.selections import WindowFirst

PyramidForm = Literal["linear", "released", "kvpress"]


@dataclass(frozen=True)
class Pyramid(Budget):
    """Budgets that fall linearly with depth (PyramidKV, arXiv 2406.02069).

    Attributes:
        beta: Ratio that sets the last layer's budget, mean / beta; the first gets 2 mean - last.
        window: Entries of the observation window.
        form: "linear" leaves the window out of the pyramid and meets the total. "released" does
            too, but floors the step, so that deeper layers hold a little more than the total
            allows, and is uniform for prompts under twice the budget. "kvpress" counts the window
            in the pyramid and is uniform where the last layer would not hold it.
    """

    beta: float = 20.0
    window: int = 64
    form: PyramidForm = "linear"

    def check(self, facts: ModelFacts) -> None:
        if self.beta < 1:
            raise InvalidValueError("beta", self.beta, "at least 1")
        check_window(self.window, 0)

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        mean = nominal.mean(1, keepdim=True)
        longest = lengths.amax(1, keepdim=True).double()
        outside = 0 if self.form == "kvpress" else self.window
        base = mean - outside  # entries of a layer beyond the window
        low = (base / self.beta).floor() if self.form != "linear" else base / self.beta
        high = 2 * base - low
        if self.form == "kvpress":
            falls = (high <= longest) & (low >= self.window)
        else:
            high = torch.minimum(high, torch.maximum(longest - outside, base))
            low = 2 * base - high
            falls = base > 0
        if self.form == "released":
            falls = falls & (longest >= 2 * base)
        depth = torch.arange(nominal.shape[1], device=nominal.device)
        step = (high - low) / max(1, nominal.shape[1] - 1)
        step = step.floor() if self.form == "released" else step
        return torch.where(falls, high - depth * step + outside, nominal)


@register("pyramidkv")
def pyramidkv(
    retention: float, window: int = 64, beta: float = 20.0, form: PyramidForm = "linear"
) -> Evicting:
    """PyramidKV: SnapKV with budgets that fall with depth."""
    budget = Pyramid(beta, window, form)
    return Evicting(budget, ObservationWindow(window), WindowFirst(window), retention)
