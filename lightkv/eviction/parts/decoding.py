"""Decode policies that evict: what leaves a layer's cache when a generated token joins it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightkv.contract.checks import check_count
from lightkv.contract.decoding import By, CountedPolicy, HeldCounts, Leaving
from lightkv.errors import InvalidValueError

Victim = Literal["score", "attention", "oldest"]


@dataclass(frozen=True)
class EvictOne(CountedPolicy):
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

    @property
    def needs_score(self) -> bool:
        return False

    def leaving(self, held: HeldCounts) -> Leaving:
        stop = held.lengths - held.read("tail")[:, None]
        counts = (surplus(held) >= 1).astype(np.int64)
        return Leaving.between(held, counts, self.protect_first, stop, "attention")


@dataclass(frozen=True)
class FixedSlot(CountedPolicy):
    """Hold the layer's share of all tokens seen, dropping always the same slot.

    PrefixKV (arXiv 2412.03409) and ElasticCache (arXiv 2407.18121): the slot lies ``distance``
    entries before the end of what prefill kept; the middle slot if that is below 1.
    """

    distance: int = 25

    def check(self) -> None:
        check_count("distance", self.distance, least=0)

    def leaving(self, held: HeldCounts) -> Leaving:
        slot = held.read("kept") - self.distance
        slot = np.where(slot < 1, held.lengths // 2, slot)
        counts = (surplus(held) >= 1).astype(np.int64)
        return Leaving.between(held, counts, slot, slot + 1, "slot")


@dataclass(frozen=True)
class HoldBudget(CountedPolicy):
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

    @property
    def needs_score(self) -> bool:
        return self.victim == "score"

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

    def leaving(self, held: HeldCounts) -> Leaving:
        target = held.read("kept") if self.capacity is None else self.capacity
        over = np.maximum(held.lengths - target, 0)
        share = ((held.lengths - over) * self.recent_share).astype(np.int64)
        stop = held.lengths - np.maximum(share, self.recent)
        by = _BY[self.victim]
        return Leaving.between(held, over, self.protect_first, stop, by, self.kernel)


_BY: dict[Victim, By] = {"score": "score", "attention": "attention", "oldest": "slot"}


def surplus(held: HeldCounts) -> NDArray[np.float32]:
    """(B, G) float32: whole entries that the cache holds beyond its share of the tokens seen.

    In float32, as the released TGV-KV and PrefixKV count.  A share that is not a number (a prompt
    that could not be budgeted) is never exceeded.
    """
    allowed = held.seen.astype(np.float32) * held.read("budget_ratio")
    over = held.lengths.astype(np.float32) - allowed[:, None]
    whole: NDArray[np.float32] = np.maximum(np.trunc(np.nan_to_num(over)), 0)
    return whole
