"""Decode policies: what happens to a layer's cache when a generated token joins it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightkv.contract.types import Checked


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
            step since; None unless the policy needs attention.
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
            RuntimeError: If whoever drives the policy left it out.
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

    def check(self) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    @abstractmethod
    def evict(self, view: DecodeView) -> Tensor | None:
        """(B, G, K) bool, entries to drop now, or None for none."""


@dataclass(frozen=True)
class Grow(DecodePolicy):
    """Keep what prefill kept and append every new entry."""

    @property
    def static(self) -> bool:
        return True

    def evict(self, view: DecodeView) -> Tensor | None:
        return None
