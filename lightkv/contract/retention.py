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
            the mean over heads where they differ. This field and those below are best on the host,
            which compares them.
        budget_ratio: (B,) float32 or None: share of a growing cache that the layer may hold while
            decoding, for decode policies that go on evicting.
        tail: (B,) int64 or None: entries at the end of the cache that decoding may not evict.
        merge: What evicted entries leave behind in kept ones, or None for nothing: a reduction of
            B * G rows (groups of a batch row next to each other) whose survivors are ``index``.
        protected: (B,) int64 or None: entries that stay whatever the budget.
        unused: Entries of the request that the method leaves unused by design.
        held: (B, G) int64 on the host, entries kept, where the host knows them already.
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
            # (B, G, K) as (B, H_kv, K, d): the same entries in all heads, or each head's own
            return states.gather(2, self.index[..., None].expand(batch, heads, kept, width))
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


def verify(retentions: Sequence[Retention], lengths: Sequence[Sequence[int]]) -> None:
    """Compare what is kept with what was asked for.

    Args:
        retentions: Of each layer.
        lengths: Of each layer the entries of each row that there were.

    Raises:
        RetentionMismatchError: If a row keeps a whole entry more or less than requested, once the
            request is raised to what is protected and lowered to what there is.
    """
    counts = [on_host(one.counts) for one in retentions]
    alone = all(one.shape[1] == 1 for one in counts)
    kept = np.stack([one[:, 0] if alone else one.mean(1) for one in counts])  # (L, B)
    asked = np.stack([on_host(one.requested) for one in retentions]).astype(np.float64)
    none = np.zeros(asked.shape[1])
    least = [none if one.protected is None else on_host(one.protected) for one in retentions]
    floor, there = np.stack(least), np.array(lengths)
    # Whole entries are shared out by largest remainder, so rounding moves less than one.
    over = kept - np.minimum(np.maximum(asked, floor), there)
    slack = 1 + ROUNDING_NOISE
    unused = np.array([one.unused for one in retentions])[:, None]
    wrong = np.argwhere((over > slack) | (over < -slack - unused))
    if len(wrong):
        layer, row = (int(number) for number in wrong[0])
        raise RetentionMismatchError(
            f"layer {layer}, row {row}: {kept[layer, row]:g} entries are kept of "
            f"{there[layer, row]}, where {asked[layer, row]:g} were requested and "
            f"{int(floor[layer, row])} are protected"
        )
