"""PrefixKV: every layer keeps the same share of its attention mass.

*PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient
Generation*, Wang et al., NeurIPS 2025, arXiv 2412.03409.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget, no_strength
from lightkv.eviction.parts.decoding import FixedSlot
from lightkv.eviction.parts.protection import no_position
from lightkv.eviction.parts.rankings import SelfAttention
from lightkv.eviction.parts.selections import ByScore


@dataclass(frozen=True)
class CumulativeMass(Budget):
    """Every layer keeps the same share of its score mass (PrefixKV, arXiv 2412.03409), online.

    The layer keeps its best entries until they hold a mass p, and p is such that all layers
    together meet the total.  That is to take, of all entries of all layers, those with the least
    mass before them in their own layer, so no search for p is needed.
    """

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        mass = score if score.dim() == 2 else score.mean(1)
        mass = torch.where(view.layout.real, mass, 0).clamp_min(0)
        return mass / mass.sum(1, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        before = []
        for layer, mass in enumerate(strengths):
            ordered = mass.double().sort(1, descending=True).values
            place = torch.arange(mass.shape[1], device=mass.device)
            missing = place >= lengths[:, layer, None]
            before.append((ordered.cumsum(1) - ordered).masked_fill(missing, torch.inf))
        # Stable, so that equal masses go to the lower layer; near-ties fall as rounding does.
        order = torch.argsort(torch.cat(before, 1), dim=1, stable=True)
        taken = torch.argsort(order, dim=1) < nominal.sum(1, keepdim=True).round()
        counts, start = [], 0
        for mass in strengths:
            counts.append(taken[:, start : start + mass.shape[1]].sum(1))
            start += mass.shape[1]
        kept = torch.stack(counts, 1).double()
        # Whole entries add up to the rounded total; the wishes, as of every budget, to the total.
        rounded = kept.sum(1, keepdim=True)
        total = nominal.sum(1, keepdim=True)
        return torch.where(rounded > 0, kept * total / rounded.clamp_min(1), nominal)


@dataclass(frozen=True)
class Profile(Budget):
    """Shares of the layers measured before, on other prompts (PrefixKV, offline).

    Attributes:
        shares: One number per layer; their mean stands for the retention asked for.
    """

    shares: tuple[float, ...]

    @classmethod
    def measured(cls, kept: Tensor, lengths: Tensor) -> Profile:
        """Mean kept share of each layer, from kept entries (S, L) of prompts of length (S,)."""
        shares = (kept.double() / lengths.double()[:, None]).mean(0)
        return cls(tuple(shares.tolist()))

    def check(self, facts: ModelFacts) -> None:
        if len(self.shares) != facts.layers:
            raise InvalidValueError("shares", self.shares, f"one number per layer ({facts.layers})")
        if min(self.shares) < 0 or sum(self.shares) <= 0:
            raise InvalidValueError("shares", self.shares, "not negative, not all zero")

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        wanted = torch.tensor(self.shares, dtype=torch.float64, device=nominal.device) * lengths
        return wanted / wanted.sum(1, keepdim=True) * nominal.sum(1, keepdim=True)


@register("prefixkv")
def prefixkv(retention: float, shares: tuple[float, ...] | None = None) -> Evicting:
    """PrefixKV: each layer keeps the same share of its attention mass; online, or by a profile."""
    budget = CumulativeMass() if shares is None else Profile(shares)
    return Evicting(budget, SelfAttention(), ByScore(), retention, decode=FixedSlot())
