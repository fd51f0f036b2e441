"""PyramidKV: SnapKV with budgets that fall with depth.

*PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling*, Cai et al.,
arXiv 2406.02069.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.allocation import Allocation
from lightkv.eviction.parts.budgets import Budget, no_strength
from lightkv.eviction.parts.protection import no_position
from lightkv.eviction.parts.rankings import ObservationWindow, Pooling, check_window
from lightkv.eviction.parts.selections import BudgetLeWindow, WindowFirst

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
            in the pyramid, lets the first layer hold at most what lies before the window, and is
            uniform where the last layer would not hold the window.
    """

    beta: float = 20.0
    window: int = 64
    form: PyramidForm = "linear"

    def check(self, facts: ModelFacts) -> None:
        if self.beta < 1:
            raise InvalidValueError("beta", self.beta, "at least 1")
        check_window(self.window, 0)

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        mean = nominal.mean(1, keepdim=True)
        longest = lengths.amax(1, keepdim=True).double()
        outside = 0 if self.form == "kvpress" else self.window
        base = mean - outside  # entries of a layer beyond the window
        low = (base / self.beta).floor() if self.form == "released" else base / self.beta
        high = 2 * base - low
        if self.form == "kvpress":
            high = torch.minimum(high, longest - self.window)
            low = 2 * base - high
            falls = (high >= low) & (low >= self.window)
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

    def decide(
        self,
        strengths: Sequence[Tensor],
        nominal: Tensor,
        lengths: Tensor,
        floors: Tensor,
        redistribute: bool,
    ) -> Allocation:
        made = super().decide(strengths, nominal, lengths, floors, redistribute)
        if self.form != "released":
            return made
        # The floored step keeps more than was asked for.
        share = nominal.sum(1, keepdim=True) / made.requested.sum(1, keepdim=True)
        return replace(made, requested=made.requested * share, least=made.entries)


@register("pyramidkv")
def pyramidkv(
    retention: float,
    window: int = 64,
    beta: float = 20.0,
    form: PyramidForm = "linear",
    kernel: int = 5,
    pooling: Pooling = "avg",
    per_head: bool = False,
    budget_le_window: BudgetLeWindow = "truncate_window",
) -> Evicting:
    """PyramidKV: SnapKV with budgets that fall with depth."""
    budget, ranking = (
        Pyramid(beta, window, form),
        ObservationWindow(window, kernel, pooling, per_head),
    )
    return Evicting(budget, ranking, WindowFirst(window, budget_le_window), retention)
