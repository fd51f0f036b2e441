"""Which entries of a layer's cache stay, and whether they are as many as was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from torch import Tensor

from lightkv.contract.host import on_host
from lightkv.contract.reduction import Reduction, compact
from lightkv.errors import RetentionMismatchError

ROUNDING_NOISE: Final = 1e-3
"""Requests are float32: the largest prompts lose this much of an entry."""


@dataclass(frozen=True)
class Retention:
    """Entries of one layer's cache that stay.

    Attributes:
        index: (B, G, K) int64 into the layer's entries, ascending where valid; G is 1 if all heads
            share the set, else H_kv. Invalid slots come first (left padding).
        valid: (B, G, K) bool.
        requested: (B,) float32, entries that the budget asked for, before protection and rounding;
            the mean over heads where they differ. Here and below best on the host, which counts.
        budget_ratio: (B,) float32 or None: share of a growing cache that the layer may hold while
            decoding, for decode policies that go on evicting.
        tail: (B,) int64 or None: entries at the end of the cache that decoding may not evict.
        merge: What evicted entries leave behind in kept ones, or None for nothing: a reduction of
            B * G rows (groups of a batch row next to each other) whose survivors are ``index``.
        protected: (B,) int64 or None: entries that stay whatever the budget.
        unused: Entries of the request that the method leaves unused by design.
        held: (B, G) int64 on the host, entries kept, where whoever made it knows.
    """

    index: Tensor
    valid: Tensor
    requested: Tensor
    budget_ratio: Tensor | None = None
    tail: Tensor | None = None
    merge: Reduction | None = None
    protected: Tensor | None = None
    unused: int = 0
    held: Tensor | None = None

    @classmethod
    def from_keep(
        cls,
        keep: Tensor,
        requested: Tensor,
        budget_ratio: Tensor | None = None,
        tail: Tensor | None = None,
        merge: Reduction | None = None,
        protected: Tensor | None = None,
        unused: int = 0,
    ) -> Retention:
        """Build from a mask (B, N) or (B, H_kv, N) of the entries that stay."""
        grouped = keep[:, None] if keep.dim() == 2 else keep
        index, valid = compact(grouped)
        return cls(index, valid, requested, budget_ratio, tail, merge, protected, unused)

    def apply(self, states: Tensor) -> Tensor:
        """Keys or values (B, H_kv, N, d) of the layer to (B, H_kv, K, d) of what stays."""
        batch, groups, kept = self.index.shape
        heads, width = states.shape[1], states.shape[3]
        if self.merge is None:
            # (B, G, K) as (B, H_kv, K, d): heads of a group side by side
            where = self.index[:, :, None].expand(-1, -1, heads // groups, -1)
            where = where.reshape(batch, heads, kept, 1).expand(-1, -1, -1, width)
            return states.gather(2, where)
        # Heads of a group share their assignment: they become part of the feature dimension.
        # (B G, N, H / G, d), then (B G, N, H / G d)
        flat = states.view(batch * groups, heads // groups, -1, width).transpose(1, 2)
        merged = self.merge.apply(flat.flatten(2))
        return (
            merged.view(batch * groups, kept, -1, width)
            .transpose(1, 2)
            .reshape(batch, heads, kept, width)
        )

    @cached_property
    def counts(self) -> Tensor:
        """(B, G) int64 on the host: entries kept."""
        return self.valid.sum(-1).cpu() if self.held is None else self.held

    def verify(self, layer: int, lengths: Sequence[int]) -> None:
        """Compare what is kept with what was asked for.

        Args:
            layer: 0-based, for the message.
            lengths: Entries of each row that there were.

        Raises:
            RetentionMismatchError: If a row keeps a whole entry more or less than requested, once
                the request is raised to what is protected and lowered to what there is.
        """
        kept = on_host(self.counts).astype(np.float64).mean(1)
        asked = on_host(self.requested).astype(np.float64)
        floor = np.zeros_like(kept) if self.protected is None else on_host(self.protected)
        expected = np.minimum(np.maximum(asked, floor), lengths)
        # Whole entries are shared out by largest remainder, so rounding moves less than one.
        over = kept - expected
        slack = 1 + ROUNDING_NOISE
        wrong = np.flatnonzero((over > slack) | (over < -slack - self.unused))
        if len(wrong):
            row = int(wrong[0])
            raise RetentionMismatchError(
                f"layer {layer}, row {row}: {kept[row]:g} entries are kept of {lengths[row]}, "
                f"where {asked[row]:g} were requested and {int(floor[row])} are protected"
            )
