"""CAKE: budgets by entropy and variance of attention, entries by mean and variance.

*CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences*, Qin et al., ICLR 2025,
arXiv 2503.12491.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.allocation import Spread
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.decoding import HoldBudget
from lightkv.eviction.parts.protection import ends
from lightkv.eviction.parts.rankings import (
    Ranking,
    check_kernel,
    check_window,
    group_heads,
    pool_outside,
)
from lightkv.eviction.parts.selections import WindowFirst


@dataclass(frozen=True)
class EntropyVariance(Budget):
    """Budgets by entropy and variance of the last queries' attention (CAKE, arXiv 2503.12491).

    P = H^(1/tau1) V^(1/tau2), H the entropy of the window's attention to earlier entries, V its
    variance over the window.  Each layer gets its window and a share by P of the rest.

    Attributes:
        window: Number of last queries, at least 2.
        tau1, tau2: Temperatures, above 0; the released code sets them per model.
    """

    window: int = 32
    tau1: float = 1.0
    tau2: float = 1.0
    needs_attention: ClassVar[bool] = True
    spread: ClassVar[Spread] = "even"

    def check(self, facts: ModelFacts) -> None:
        check_window(self.window, 2)
        for name, value in (("tau1", self.tau1), ("tau2", self.tau2)):
            if not value > 0:
                raise InvalidValueError(name, value, "above 0")

    def queries(self, layout: TokenLayout) -> Tensor:
        return ends(layout, 0, self.window)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        attention = view.read_attention()
        window = ends(view.layout, 0, self.window)
        outside = (view.layout.real & ~window)[:, None, None]
        entropy = torch.zeros(attention.batch_size, device=attention.device)
        for index, valid in attention.blocks(window):
            rows = attention.probabilities(index) * valid[:, None, :, None] * outside
            entropy -= (rows * (rows + 1e-10).log()).sum((1, 2, 3))
        _, variance = window_moments(view, window)
        variance = (variance * outside[:, 0]).sum((1, 2))
        return entropy.clamp_min(0) ** (1 / self.tau1) * variance ** (1 / self.tau2)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        claim = torch.stack(list(strengths), 1).double()
        total = claim.sum(1, keepdim=True)
        share = torch.where(total > 0, claim / total.clamp_min(1e-30), 1 / claim.shape[1])
        window = nominal.clamp_max(self.window)
        return window + share * (nominal - window).sum(1, keepdim=True)


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
        check_kernel(self.kernel)

    def queries(self, layout: TokenLayout) -> Tensor:
        return ends(layout, 0, self.window)

    def score(self, view: EntriesView) -> Tensor:
        window = ends(view.layout, 0, self.window)
        mean, variance = window_moments(view, window)
        scores = group_heads(mean + self.gamma * variance, view)
        return pool_outside(scores, view, window, self.kernel, "avg")


def window_moments(view: EntriesView, window: Tensor) -> tuple[Tensor, Tensor]:
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


@register("cake", fixed=("decode",))
def cake(
    retention: float,
    window: int = 32,
    gamma: float = 200.0,
    tau1: float = 1.0,
    tau2: float = 1.0,
    kernel: int = 5,
    decode_kernel: int = 1,
) -> Evicting:
    """CAKE: budgets by entropy and variance of attention, entries by mean and variance."""
    budget, ranking = EntropyVariance(window, tau1, tau2), WindowIndicator(window, gamma, kernel)
    decode = HoldBudget("attention", recent=window, kernel=decode_kernel)
    return Evicting(budget, ranking, WindowFirst(window), retention, decode=decode)
