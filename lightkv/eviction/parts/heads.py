"""Budgets that differ between the heads of a layer (Ada-KV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.parts.protection import ends, slots
from lightkv.eviction.parts.selections import Selection, keep_best

AdaptiveForm = Literal["exact", "released"]


@dataclass(frozen=True)
class AcrossHeads(Selection):
    """Heads of a layer compete for its budget (Ada-KV, arXiv 2407.11550).

    Attributes:
        window: Last entries, kept by every head.
        floor: Share of an equal budget that every head gets for sure, in [0, 1].
        normalise: Multiply a head's scores by the share of its mass that an equal budget would
            hold, before heads are compared.
        form: "exact" gives every head its floor and the rest to the highest scores of all heads,
            so the layer's total is met. "released" counts each head's entries among the highest
            scores of all heads, then mixes in the floor and rounds head by head.
    """

    window: int = 32
    floor: float = 0.2
    normalise: bool = True
    form: AdaptiveForm = "exact"

    def check(self, facts: ModelFacts) -> None:
        if self.window < 0:
            raise InvalidValueError("window", self.window, "at least 0")
        if not 0 <= self.floor <= 1:
            raise InvalidValueError("floor", self.floor, "0 to 1")

    @property
    def unused(self) -> int:
        # A head's rounding loses less than 1.5 entries, of which any method may lose one.
        return 1 if self.form == "released" else 0

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return torch.zeros_like(layout.kind)

    def keep(self, score: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        return self.keep_claimed(score, score, layout, budget, protected)

    def keep_claimed(
        self, score: Tensor, claims: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor
    ) -> Tensor:
        if score.dim() != 3:
            raise UnsupportedError(f"{type(self).__name__} needs a ranking that scores each head")
        # A budget not larger than the window buys its newest entries.
        window = protected | ends(layout, 0, self.window)
        newest = torch.where(protected, layout.length, slots(layout))[:, None]
        paid = keep_best(newest.float(), window[:, None].long(), budget[:, None])[:, 0] & window
        always = protected | paid
        free = (layout.real & ~always)[:, None]  # (B, 1, N)
        rest = (budget - always.sum(1)).clamp_min(0)  # (B,), per head
        claimed = self._claimed(claims, free, rest)
        if claims is not score:
            claimed = keep_best(score, free.long(), claimed.sum(-1)) & free
        return claimed | always[:, None]

    def _claimed(self, claims: Tensor, free: Tensor, rest: Tensor) -> Tensor:
        """(B, H_kv, N) bool: what each head gets of the ``free`` (B, 1, N) entries.

        Args:
            claims: (B, H_kv, N).
            free: Entries that are not kept anyway.
            rest: (B,) int64, how many of them there are for each head on average.
        """
        if self.normalise:
            equal = keep_best(claims, free.long(), rest[:, None]) & free
            share = (claims * equal).sum(-1) / (claims * free).sum(-1).clamp_min(1e-30)
            claims = claims * share[..., None]
        sure = (rest.double() * self.floor).long()[:, None]
        if self.form == "exact":
            tier = free.long() + (keep_best(claims, free.long(), sure) & free)
            return self._best_of_all(claims, tier, rest) & free
        counts = (self._best_of_all(claims, free.long(), rest) & free).sum(-1)  # (B, H_kv)
        mixed = (counts.double() * (1 - self.floor) + sure).round().long()
        return keep_best(claims, free.long(), mixed) & free

    @staticmethod
    def _best_of_all(score: Tensor, tier: Tensor, rest: Tensor) -> Tensor:
        """(B, H_kv, N) bool: the best ``rest`` times H_kv entries of all heads together."""
        heads = score.shape[1]
        pooled = tier.expand_as(score).flatten(1)[:, None]  # (B, 1, H_kv N)
        best = keep_best(score.flatten(1)[:, None], pooled, rest[:, None] * heads)
        return best.view(score.shape)
