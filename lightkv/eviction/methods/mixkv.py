"""MixKV: importance and diversity of entries, mixed head by head.

*Mixing Importance with Diversity: Joint Optimization for KV Cache Compression in Large
Vision-Language Models*, Liu et al., arXiv 2510.20707. A score for SnapKV, PyramidKV and Ada-KV,
whose budgets and selections stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.keydiff import unit_keys
from lightkv.eviction.methods.pyramidkv import Pyramid, PyramidForm
from lightkv.eviction.parts.budgets import Budget, Uniform
from lightkv.eviction.parts.heads import AcrossHeads, AdaptiveForm
from lightkv.eviction.parts.protection import ends
from lightkv.eviction.parts.rankings import (
    ObservationWindow,
    Pooling,
    Ranking,
    check_kernel,
    check_window,
    pool_outside,
)
from lightkv.eviction.parts.selections import BudgetLeWindow, WindowFirst

MixMode = Literal["headwise", "plain", "attention", "diversity", "importance"]
Joining = Literal["mean", "max"]
Ratios = tuple[tuple[float, ...], ...]

_SMALL = 1e-8  # the released code's guard of denominators
_PLAIN = 0.33  # weight of each part in the mode "plain"


@dataclass(frozen=True)
class MixedScore(Ranking):
    """Attention, value norm and key diversity of the entries before the window, per KV head.

    Importance is the pooled attention of the last queries plus the value norm, diversity is minus
    the similarity to the mean unit key; value norm and diversity are spread over [0, 1] and scaled
    to the mean of the attention.

    Attributes:
        mode: "headwise" mixes diversity and importance in the ratio of the head's mean pairwise
            cosine of keys; "plain" adds attention, value norm and diversity alike; the others are
            one part alone.
        window: Number of last queries.
        kernel: Odd width of the pooling.
        pooling: "avg" (zeros beyond the ends count), "max" or "none".
        joining: How the query heads of a KV head are joined before pooling.
        ratios: Share of diversity of each layer and KV head, measured before, for "headwise"; None
            to take it from the prompt's own keys.
    """

    mode: MixMode = "headwise"
    window: int = 32
    kernel: int = 5
    pooling: Pooling = "avg"
    joining: Joining = "mean"
    ratios: Ratios | None = None

    def check(self, facts: ModelFacts) -> None:
        check_window(self.window)
        check_kernel(self.kernel)
        if self.ratios is None:
            return
        if self.mode != "headwise":
            raise InvalidValueError("ratios", self.ratios, "None where mode is not 'headwise'")
        shape = {len(row) for row in self.ratios}
        if len(self.ratios) != facts.layers or shape != {facts.kv_heads}:
            allowed = f"{facts.layers} layers of {facts.kv_heads} numbers each"
            raise InvalidValueError("ratios", self.ratios, allowed)
        if not all(0 <= ratio <= 1 for row in self.ratios for ratio in row):
            raise InvalidValueError("ratios", self.ratios, "0 to 1")

    def score(self, view: EntriesView) -> Tensor:
        window = ends(view.layout, 0, self.window)
        outside = (view.layout.real & ~window)[:, None]
        attention = self._attention(view, window)
        if self.mode == "attention":
            return attention
        unit, mean = unit_keys(view)
        similarity = (unit * mean).sum(3)
        diversity = _scaled(_spread(-similarity, outside, _SMALL), attention, outside)
        if self.mode == "diversity":
            return diversity
        if view.values is None:
            raise UnsupportedError(f"layer {view.layer} has no values to rank by")
        norm = view.values.float().square().sum(3).sqrt()
        norm = _scaled(_spread(norm, outside, 0), attention, outside)
        if self.mode == "importance":
            return attention + norm
        if self.mode == "plain":
            return _PLAIN * (diversity + attention + norm)
        share = self._ratio(view, mean)[..., None]
        return share * diversity + (1 - share) * (attention + norm)

    def _attention(self, view: EntriesView, window: Tensor) -> Tensor:
        """(B, H_kv, N) pooled mean attention from the window to the entries before it."""
        if view.keys is None:
            raise UnsupportedError(f"layer {view.layer} has no keys to tell its KV heads from")
        weights: Attention = view.read_attention()
        sums = weights.column_sums(window, per_head=True)
        means = sums / window.sum(1)[:, None, None]
        batch, heads, length = view.keys.shape[:3]
        grouped = means.view(batch, heads, -1, length)  # (B, H, N) to (B, H_kv, H / H_kv, N)
        joined = grouped.amax(2) if self.joining == "max" else grouped.mean(2)
        return pool_outside(joined, view, window, self.kernel, self.pooling)

    def _ratio(self, view: EntriesView, mean: Tensor) -> Tensor:
        """(B, H_kv) share of diversity: given, or the mean cosine of two different keys."""
        if self.ratios is not None:
            fixed = torch.tensor(self.ratios[view.layer], device=mean.device)
            return fixed.expand(mean.shape[0], -1)
        count = view.layout.prompt_lengths[:, None]
        squared = mean.square().sum((2, 3))
        return (count * squared - 1) / (count - 1).clamp_min(1)


def _spread(values: Tensor, outside: Tensor, small: float) -> Tensor:
    """(B, H, N) values of the marked entries spread over [0, 1]; zero where all are equal."""
    low = values.masked_fill(~outside, torch.inf).amin(2, keepdim=True)
    high = values.masked_fill(~outside, -torch.inf).amax(2, keepdim=True)
    wide = high - low
    spread = (values - low) / torch.where(wide > 0, wide + small, 1)
    return torch.where(outside & (wide > 0), spread, 0)


def _scaled(values: Tensor, attention: Tensor, outside: Tensor) -> Tensor:
    """(B, H, N) values with the mean that the attention has over the marked entries."""
    count = outside.sum(2, keepdim=True).clamp_min(1)
    target = attention.sum(2, keepdim=True) / count
    return values * target / (values.sum(2, keepdim=True) / count + _SMALL)


@dataclass(frozen=True)
class MixedWithinHeads(Ranking):
    """The mix, where heads compete by attention alone, as in the published host Ada-KV.

    Attributes:
        counting: By which heads compete.
        mixed: By which a head picks its entries.
    """

    counting: ObservationWindow = ObservationWindow(32, 7, "max", per_head=True)  # noqa: RUF009
    mixed: MixedScore = MixedScore()

    def check(self, facts: ModelFacts) -> None:
        self.counting.check(facts)
        self.mixed.check(facts)

    def score(self, view: EntriesView) -> Tensor:
        return self.mixed.score(view)

    def claims(self, view: EntriesView) -> Tensor:
        return self.counting.score(view)


@register("mixkv")
def mixkv(
    retention: float,
    mode: MixMode = "headwise",
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    joining: Joining = "mean",
    ratios: Ratios | None = None,
    budget_le_window: BudgetLeWindow = "truncate_window",
) -> Evicting:
    """MixKV on SnapKV: attention and value norm, mixed with the diversity of keys."""
    ranking = MixedScore(mode, window, kernel, pooling, joining, ratios)
    return Evicting(Uniform(), ranking, WindowFirst(window, budget_le_window), retention)


@register("mixkv-pyramidkv")
def mixkv_pyramidkv(
    retention: float,
    mode: MixMode = "headwise",
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    joining: Joining = "mean",
    ratios: Ratios | None = None,
    budget_le_window: BudgetLeWindow = "truncate_window",
    beta: float = 20.0,
    form: PyramidForm = "linear",
) -> Evicting:
    """MixKV on PyramidKV: the mixed score, with budgets that fall with depth."""
    budget: Budget = Pyramid(beta, window, form)
    ranking = MixedScore(mode, window, kernel, pooling, joining, ratios)
    return Evicting(budget, ranking, WindowFirst(window, budget_le_window), retention)


@register("mixkv-ada-kv")
def mixkv_ada_kv(
    retention: float,
    mode: MixMode = "headwise",
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    joining: Joining = "mean",
    ratios: Ratios | None = None,
    floor: float = 0.2,
    normalise: bool = True,
    form: AdaptiveForm = "exact",
) -> Evicting:
    """MixKV on Ada-KV: heads share the budget by attention, entries of a head by the mix."""
    counting = ObservationWindow(window, 7, "max", per_head=True)
    mixed = MixedScore(mode, window, kernel, pooling, joining, ratios)
    selection = AcrossHeads(window, floor, normalise, form)
    return Evicting(Uniform(), MixedWithinHeads(counting, mixed), selection, retention)
