"""Bookkeeping of what each layer's cache physically holds, and the masks that follow from it.

Layers may hold different entries, rows different counts.  A layer's tensors are then padded on the
left to its longest row, and every decode step attends through a mask of that layer's own length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.compressor import Retention
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import compact


@dataclass
class LayerEntries:
    """Entries of one layer's cache: K physical slots for each of B rows and G head groups.

    Attributes:
        position: (B, G, K) int64, index of the entry's token in its row, -1 for padding.
        valid: (B, G, K) bool.
        score: (B, G, K) float32 ranking score, kept only for decode policies that need it.
        retention: What the evictor decided for the layer, None before or without eviction.
        rotated: (B, G, K) int64, rotary position of each key in a re-indexed cache; None where keys
            keep their own.
    """

    position: Tensor
    valid: Tensor
    score: Tensor | None = None
    retention: Retention | None = None
    rotated: Tensor | None = None

    @classmethod
    def of_layout(cls, layout: TokenLayout) -> LayerEntries:
        """Entries right after prefill: one per position of the layer."""
        return cls(layout.position[:, None], layout.real[:, None])

    @property
    def slots(self) -> int:
        return int(self.position.shape[-1])

    @property
    def ragged(self) -> bool:
        """True if some slot has to be hidden from attention."""
        return not bool(self.valid.all())

    def places(self) -> Tensor:
        """(B, G, K) int64: number of each entry among those that its row holds."""
        return (self.valid.long().cumsum(-1) - 1).clamp_min(0)

    def in_window(self, window: int, new: int = 1) -> Tensor:
        """(B, G, T, K) bool: entries that the newest T = ``new`` tokens look back on."""
        queries = self.position[:, :, self.slots - new :, None]
        return queries - self.position[:, :, None, :] < window

    def within(self, window: int | None) -> bool:
        """True if the newest token's window hides no entry."""
        return window is None or bool((self.in_window(window)[:, :, 0] | ~self.valid).all())

    def retain(self, layer: Any, retention: Retention) -> None:
        """Cut to what an evictor keeps, evicted entries merged into kept ones where it says so."""
        layer.keys = retention.apply(layer.keys)
        layer.values = retention.apply(layer.values)
        self._take(retention.index, retention.valid)

    def _gather(self, layer: Any, index: Tensor, valid: Tensor) -> None:
        kv_heads, width = layer.keys.shape[1], layer.keys.shape[3]
        where = index.expand(-1, kv_heads, -1)[..., None].expand(-1, -1, -1, width)
        layer.keys = layer.keys.gather(2, where)
        layer.values = layer.values.gather(2, where)
        self._take(index, valid)

    def _take(self, index: Tensor, valid: Tensor) -> None:
        def pick(values: Tensor) -> Tensor:
            return values.expand(-1, index.shape[1], -1).gather(2, index)

        self.position = pick(self.position)
        self.valid = pick(self.valid) & valid
        if self.score is not None:
            self.score = pick(self.score)
        if self.rotated is not None:
            self.rotated = pick(self.rotated)

    def append(self, position: Tensor, valid: Tensor) -> None:
        """Note new tokens.

        Args:
            position: (B, T) int64, their places in their rows.
            valid: (B, T) bool, False for padding.
        """
        groups = self.position.shape[1]
        new = position[:, None].expand(-1, groups, -1)
        self.position = torch.cat([self.position, new], -1)
        self.valid = torch.cat([self.valid, valid[:, None].expand(-1, groups, -1)], -1)
        if self.score is not None:
            zeros = torch.zeros(new.shape, dtype=self.score.dtype, device=new.device)
            self.score = torch.cat([self.score, zeros], -1)
        if self.rotated is not None:
            newest = self.places()[..., self.slots - new.shape[-1] :]
            self.rotated = torch.cat([self.rotated, newest], -1)

    def drop(self, layer: Any, leaving: Tensor) -> None:
        """Evict the marked entries (B, G, K); slots free in every row are given back."""
        if leaving.shape[1] != self.valid.shape[1]:
            leaving = leaving.expand(-1, self.valid.shape[1], -1)
        self.valid = self.valid & ~leaving
        if int(self.valid.sum(-1).max()) < self.slots:
            self._gather(layer, *compact(self.valid))


def decode_mask(
    entries: LayerEntries,
    heads: int,
    additive: torch.dtype | None,
    new: int = 1,
    window: int | None = None,
) -> Tensor | None:
    """Mask of ``new`` tokens T joining the cache, (B, 1 or H, T, K), or None if it hides nothing.

    None matters: a mask that hides nothing selects another kernel and changes the last bits.

    Args:
        entries: The layer's entries, the new tokens included.
        heads: Number of query heads H.
        additive: Dtype of an additive mask (eager attention), None for a boolean one (SDPA).
        new: Number of tokens that were fed.
        window: Tokens of the row that a query looks back on, itself included; None for all.
    """
    if new == 1 and not entries.ragged and entries.within(window):
        return None
    visible = entries.valid
    if visible.shape[1] > 1:
        visible = visible.repeat_interleave(heads // visible.shape[1], 1)
    slots = torch.arange(entries.slots, device=visible.device)
    causal = slots[None, :] <= slots[entries.slots - new :, None]
    # A padding query has nothing to see; it sees itself so that no row is empty.
    itself = slots[None, :] == slots[entries.slots - new :, None]
    seen = visible[:, :, None, :] & causal
    if window is not None:
        seen = seen & entries.in_window(window, new).repeat_interleave(
            visible.shape[1] // entries.position.shape[1], 1
        )
    return as_mask(seen | itself, additive)


def hide(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """A mask that hides more.

    Args:
        mask: What the layer would attend through: boolean, additive, or None (causal).
        hidden: (B, 1 or H, T, K) bool, pairs that must not be seen; the T queries come last.
    """
    if mask is None:
        count, slots = hidden.shape[2:]
        causal = torch.ones(count, slots, dtype=torch.bool, device=hidden.device)
        return causal.tril(slots - count) & ~hidden
    if mask.dtype == torch.bool:
        return mask & ~hidden
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def as_mask(visible: Tensor, additive: torch.dtype | None) -> Tensor:
    """A boolean mask as the attention kernel wants it: boolean, or 0 / lowest of a dtype."""
    if additive is None:
        return visible
    zeros = torch.zeros(visible.shape, dtype=additive, device=visible.device)
    return zeros.masked_fill(~visible, torch.finfo(additive).min)


def shortened_mask(
    mask: Tensor | None, index: Tensor, valid: Tensor, additive: torch.dtype | None
) -> Tensor | None:
    """A prefill mask for the surviving tokens.

    Args:
        mask: The layer's own mask (B or 1, heads or 1, N, N) before shortening, or None (causal).
        index: (B, K) int64, surviving positions.
        valid: (B, K) bool.
        additive: Dtype of an additive mask, None for a boolean one.
    """
    batch, length = index.shape
    if mask is None:
        if bool(valid.all()):
            return None
        visible = torch.ones(length, length, dtype=torch.bool, device=index.device).tril()
        visible = visible[None, None] & valid[:, None, None, :]
    else:
        full = mask.expand(batch, *mask.shape[1:])
        heads, keys = full.shape[1], full.shape[3]
        rows = index[:, None, :, None].expand(-1, heads, -1, keys)
        columns = index[:, None, None, :].expand(-1, heads, length, -1)
        picked = full.gather(2, rows).gather(3, columns)
        visible = picked if picked.dtype == torch.bool else picked == 0
        visible = visible & valid[:, None, None, :]
    # An invalid query has nothing to see; it sees itself so that no row is empty.
    itself = torch.eye(length, dtype=torch.bool, device=index.device)
    return as_mask(visible | (itself & ~valid[:, None, :, None]), additive)
