"""Decode policies: what happens to a layer's cache when a generated token joins it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.host import on_host
from lightkv.contract.types import Checked

By = Literal["slot", "score", "attention"]
"""What decides who leaves first: the lowest slot, the smallest score, or the smallest attention
from the newest token."""


@dataclass(frozen=True, kw_only=True)
class DecodeView:
    """One layer's cache at one decode step, the newest token included.

    G is 1 where all heads share their entries, else H_kv; K counts physical slots.

    Attributes:
        layer: 0-based decoder layer.
        position: (B, G, K) int64, index of each entry in its row (prompt first, then generated).
        valid: (B, G, K) bool; invalid slots are padding.
        seen: (B,) int64, tokens of the row so far, the newest included.
        budget_ratio: (B,) float32, the layer's share as set by the retention, or None.
        tail: (B,) int64, entries at the end of the cache that the retention protects, or None.
        attention: (B, G, K) float32, attention of the newest token, mean over the heads of a
            group; None unless the policy needs it.
        score: (B, G, K) float32, ranking score after prefill plus the attention collected at every
            step since; None unless the policy needs scores.
        kept: (B, G) int64, entries that the retention left after prefill, or None.
    """

    layer: int
    position: Tensor
    valid: Tensor
    seen: Tensor
    budget_ratio: Tensor | None = None
    tail: Tensor | None = None
    attention: Tensor | None = None
    score: Tensor | None = None
    kept: Tensor | None = None

    @property
    def slots(self) -> Tensor:
        """(B, G, K) int64: number of each entry among the valid ones."""
        return self.valid.cumsum(-1) - 1

    @property
    def lengths(self) -> Tensor:
        """(B, G) int64: entries held, the newest included."""
        return self.valid.sum(-1)

    def read(self, name: Literal["budget_ratio", "tail", "attention", "score", "kept"]) -> Tensor:
        """An optional attribute that the policy can't do without.

        Raises:
            RuntimeError: If the caller of the policy left it out.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise RuntimeError(f"layer {self.layer}: the decode policy needs {name!r}")
        return value


@dataclass(frozen=True)
class DecodePolicy(Checked, ABC):
    """Decides at each decode step which entries leave."""

    @property
    def static(self) -> bool:
        """True if nothing is ever evicted while decoding."""
        return False

    @property
    def needs_attention(self) -> bool:
        """True if the policy reads the newest token's attention."""
        return False

    @property
    def bounds_whole_cache(self) -> bool:
        """True if the policy evicts even from a cache of which prefill kept everything."""
        return False

    @property
    def needs_score(self) -> bool:
        """True if the policy reads scores, which collect attention at every step."""
        return self.needs_attention

    def check(self) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    @abstractmethod
    def evict(self, view: DecodeView) -> Tensor | None:
        """(B, G, K) bool, entries to drop now, or None for none."""


@dataclass(frozen=True, kw_only=True)
class HeldCounts:
    """Numbers of one layer's cache at one decode step, all on the host.

    Attributes:
        layer: 0-based decoder layer.
        lengths: (B, G) int64, entries held, the newest included.
        seen: (B,) int64, tokens of the row so far, the newest included.
        kept: (B, G) int64, entries that the retention left after prefill, or None.
        budget_ratio: (B,) float32, the layer's share as set by the retention, or None.
        tail: (B,) int64, entries at the end of the cache that the retention protects, or None.
    """

    layer: int
    lengths: NDArray[np.int64]
    seen: NDArray[np.int64]
    kept: NDArray[np.int64] | None = None
    budget_ratio: NDArray[np.float32] | None = None
    tail: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, view: DecodeView) -> HeldCounts:
        """The numbers of a view."""
        return cls(
            layer=view.layer,
            lengths=on_host(view.lengths),
            seen=on_host(view.seen),
            kept=None if view.kept is None else on_host(view.kept),
            budget_ratio=None if view.budget_ratio is None else on_host(view.budget_ratio),
            tail=None if view.tail is None else on_host(view.tail),
        )

    def read(self, name: Literal["budget_ratio", "tail", "kept"]) -> NDArray[Any]:
        """An optional attribute that the policy can't do without.

        Raises:
            RuntimeError: If the caller of the policy left it out.
        """
        value: NDArray[Any] | None = getattr(self, name)
        if value is None:
            raise RuntimeError(f"layer {self.layer}: the decode policy needs {name!r}")
        return value


@dataclass(frozen=True)
class Leaving:
    """Entries that leave a layer: a number of those in a range of slots.

    Slots number the entries that are held, padding left out.

    Attributes:
        counts: (B, G) int64, entries to drop.
        first, stop: (B, G) int64, first slot that may leave, and the slot after the last.
        by: Who leaves first; the lowest slot on ties.
        kernel: Odd width of the average pooling of what decides, along the entries before
            ``stop``; zeros lie beyond them.
    """

    counts: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    by: By
    kernel: int = 1

    @classmethod
    def between(
        cls,
        held: HeldCounts,
        counts: NDArray[np.int64],
        first: NDArray[np.int64] | int,
        stop: NDArray[np.int64],
        by: By,
        kernel: int = 1,
    ) -> Leaving:
        """At most ``counts`` (B, G), and no more than there are between two slots."""
        shape = held.lengths.shape
        start = np.broadcast_to(np.maximum(first, 0), shape)
        end = np.minimum(np.broadcast_to(stop, shape), held.lengths)
        return cls(np.clip(end - start, 0, counts), start, np.maximum(start, end), by, kernel)

    def pooled(self, value: Tensor) -> Tensor:
        """Values (B, G, K) averaged along the last axis, zeros beyond the ends."""
        if self.kernel == 1:
            return value
        return F.avg_pool1d(value, self.kernel, 1, self.kernel // 2)

    def marked(self, valid: Tensor, value: Tensor | None) -> Tensor:
        """(B, G, K) bool: the entries that leave.

        Args:
            valid: (B, G, K) bool, slots that hold an entry.
            value: (B, G, K) float32, what decides; None where the slot does.
        """
        numbers = torch.from_numpy(np.stack([self.first, self.stop, self.counts]))
        first, stop, counts = numbers.to(valid.device)[..., None].unbind(0)
        slots = valid.cumsum(-1) - 1
        if value is None:
            return valid & (slots >= first) & (slots < first + counts)
        before = valid & (slots < stop)
        candidate = before & (slots >= first)
        value = self.pooled(value * before) if self.kernel > 1 else value
        order = torch.argsort(value.masked_fill(~candidate, torch.inf), dim=-1, stable=True)
        return candidate & (torch.argsort(order, dim=-1) < counts)


@dataclass(frozen=True)
class CountedPolicy(DecodePolicy):
    """A policy of which the host knows how many entries leave, so that it never has to wait."""

    @abstractmethod
    def leaving(self, held: HeldCounts) -> Leaving:
        """What leaves a layer at this step."""

    def evict(self, view: DecodeView) -> Tensor | None:
        leaving = self.leaving(HeldCounts.of(view))
        value = None if leaving.by == "slot" else view.read(leaving.by)
        return leaving.marked(view.valid, value)


@dataclass(frozen=True)
class Grow(DecodePolicy):
    """Keep what prefill kept and append every new entry."""

    @property
    def static(self) -> bool:
        return True

    def evict(self, view: DecodeView) -> Tensor | None:
        return None
