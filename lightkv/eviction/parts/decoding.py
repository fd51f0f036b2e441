"""Decode policies that evict: what leaves a layer's cache when a generated token joins it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.decoding import DecodePolicy, DecodeView
from lightkv.errors import InvalidValueError
from lightkv.eviction.parts.rankings import pool

Victim = Literal["score", "attention", "oldest"]


@dataclass(frozen=True)
class EvictOne(DecodePolicy):
    """Hold the layer's share of all tokens seen, dropping at most one entry per step.

    The victim is the entry of smallest attention from the newest token, between the first
    ``protect_first`` entries and the protected tail.  The tail is counted from the current end, so
    it slides, and prompt text becomes evictable as the answer grows (released TGV-KV).
    """

    protect_first: int = 4

    @property
    def needs_attention(self) -> bool:
        return True

    def check(self) -> None:
        check_count("protect_first", self.protect_first, least=0)

    def evict(self, view: DecodeView) -> Tensor | None:
        end = view.lengths - view.read("tail")[:, None]
        inside = (view.slots >= self.protect_first) & (view.slots < end[..., None])
        victim = smallest(view.read("attention"), view.valid & inside)
        return victim & (surplus(view) >= 1)[..., None]


@dataclass(frozen=True)
class FixedSlot(DecodePolicy):
    """Hold the layer's share of all tokens seen, dropping always the same slot.

    PrefixKV (arXiv 2412.03409) and ElasticCache (arXiv 2407.18121): the slot lies ``distance``
    entries before the end of what prefill kept; the middle slot if that is below 1.
    """

    distance: int = 25

    def check(self) -> None:
        check_count("distance", self.distance, least=0)

    def evict(self, view: DecodeView) -> Tensor | None:
        slot = view.read("kept") - self.distance
        slot = torch.where(slot < 1, view.lengths // 2, slot)
        chosen = view.valid & (view.slots == slot[..., None])
        return chosen & (surplus(view) >= 1)[..., None]


@dataclass(frozen=True)
class HoldBudget(DecodePolicy):
    """Hold the number of entries that prefill kept: for those that join, the worst ones leave.

    Attributes:
        victim: "score": smallest score collected so far (H2O). "attention": smallest attention
            from the newest token (CAKE). "oldest": lowest position (StreamingLLM).
        protect_first: First entries that stay.
        recent: Last entries that stay, the newest included.
        recent_share: Share of the held entries that stay for being the last, if that is more.
        capacity: Entries to hold; until they are reached the cache grows. None for as many as
            prefill kept.
        kernel: Odd width of the average pooling, along the entries before the recent ones, of what
            the victim is chosen by; 1 for none.
    """

    victim: Victim = "score"
    protect_first: int = 4
    recent: int = 1
    recent_share: float = 0.0
    capacity: int | None = None
    kernel: int = 1

    @property
    def needs_attention(self) -> bool:
        return self.victim != "oldest"

    @property
    def bounds_whole_cache(self) -> bool:
        return self.capacity is not None

    def check(self) -> None:
        check_count("protect_first", self.protect_first, least=0)
        check_count("recent", self.recent, least=0)
        if not 0 <= self.recent_share <= 1:
            raise InvalidValueError("recent_share", self.recent_share, "0 to 1")
        if self.capacity is not None and self.capacity < 1:
            raise InvalidValueError("capacity", self.capacity, "at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0 or (self.kernel > 1 and self.victim == "oldest"):
            allowed = "an odd number of at least 1, and 1 where the oldest leave"
            raise InvalidValueError("kernel", self.kernel, allowed)

    def evict(self, view: DecodeView) -> Tensor | None:
        value = view.position.float() if self.victim == "oldest" else view.read(self.victim)
        target = view.read("kept") if self.capacity is None else self.capacity
        over = (view.lengths - target).clamp_min(0)
        share = ((view.lengths - over).double() * self.recent_share).long()
        end = view.lengths - share.clamp_min(self.recent)
        before = view.valid & (view.slots < end[..., None])
        if self.kernel > 1:
            value = pool(value * before, self.kernel, "avg")
        candidate = before & (view.slots >= self.protect_first)
        order = torch.argsort(value.masked_fill(~candidate, torch.inf), dim=-1, stable=True)
        place = torch.argsort(order, dim=-1)
        return candidate & (place < over[..., None])


def surplus(view: DecodeView) -> Tensor:
    """(B, G) float32: whole entries that the cache holds beyond its share of the tokens seen.

    In float32, as the released TGV-KV and PrefixKV count.  A share that is not a number (a prompt
    that could not be budgeted) is never exceeded.
    """
    allowed = view.seen.float() * view.read("budget_ratio")
    return (view.lengths.float() - allowed[:, None]).nan_to_num().trunc().clamp_min(0)


def smallest(value: Tensor, candidate: Tensor) -> Tensor:
    """Mark the smallest (first on ties) of the candidates in (B, G, K), if there are any.

    Near-ties fall as the rounding of the values does.
    """
    victim = value.masked_fill(~candidate, torch.inf).argmin(-1, keepdim=True)
    return torch.zeros_like(candidate).scatter_(-1, victim, True) & candidate
