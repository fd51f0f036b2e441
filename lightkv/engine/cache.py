"""Bookkeeping of what each layer's cache physically holds.

Layers may hold different entries, rows different counts.  A layer's tensors are then padded on the
left to its longest row, and every decode step attends through a mask of that layer's own length
(:mod:`lightkv.engine.masks`).  How many entries there are is counted on the host, which therefore
never waits for the device; where they lie is worked out when it is first read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.host import all_true, consecutive, on_device, on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import compact
from lightkv.contract.retention import Retention


class Later:
    """A tensor (B, G, K) and the steps that are applied to it when it is next read."""

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._steps: list[Callable[[Tensor], Tensor]] = []
        self._columns: list[Tensor] = []

    def copy(self) -> Later:
        """A copy that later steps on this one do not change."""
        same = Later(self._value)
        same._steps, same._columns = list(self._steps), list(self._columns)
        return same

    def then(self, step: Callable[[Tensor], Tensor]) -> None:
        """Add a step."""
        if self._columns:
            self._steps.append(functools.partial(_joined, columns=tuple(self._columns)))
            self._columns = []
        self._steps.append(step)

    def join(self, columns: Tensor) -> None:
        """Append columns (B, T), in every group."""
        self._columns.append(columns)

    def read(self) -> Tensor:
        """The tensor with all steps applied."""
        if self._columns:
            self.then(lambda value: value)
        for step in self._steps:
            self._value = step(self._value)
        self._steps = []
        return self._value


def _joined(value: Tensor, columns: tuple[Tensor, ...]) -> Tensor:
    new = [one[:, None].expand(-1, value.shape[1], -1) for one in columns]  # (B, G, T) each
    return torch.cat([value, *new], -1)


class LayerEntries:
    """Entries of one layer's cache: K physical slots for each of B rows and G head groups.

    Attributes:
        slots: K.
        counts: (B, G) int64 on the host, entries held.
        score: (B, G, K) float32 ranking score, kept only for decode policies that need it.
        retention: What the evictor decided for the layer, None before or without eviction.
        rotated: (B, G, K) int64, rotary position of each key in a re-indexed cache; None where keys
            keep their own.
        mask: What one new token sees, with columns to spare; None after entries left.

    Args:
        layout: Layout of the layer's prompt: one entry per position, right after prefill.
    """

    def __init__(self, layout: TokenLayout) -> None:
        self.slots = layout.length
        self.counts: NDArray[np.int64] = np.array(layout.lengths, np.int64)[:, None]
        self.score: Tensor | None = None
        self.retention: Retention | None = None
        self.rotated: Tensor | None = None
        self.mask: Tensor | None = None
        self._position = Later(layout.position[:, None])
        # None as long as hidden slots all come first: then the counts say which they are.
        self._valid = None if layout.once(_left_padded) else Later(layout.real[:, None])
        self._reach: NDArray[np.int64] | None = None

    def snapshot(self) -> LayerEntries:
        """A copy of the bookkeeping as it is now; later changes to this one do not reach it."""
        same = LayerEntries.__new__(LayerEntries)
        vars(same).update(vars(self))
        same._position = self._position.copy()
        same._valid = None if self._valid is None else self._valid.copy()
        return same

    @property
    def position(self) -> Tensor:
        """(B, G, K) int64: index of the entry's token in its row, -1 for padding."""
        return self._position.read()

    @property
    def valid(self) -> Tensor:
        """(B, G, K) bool: slots that hold an entry."""
        if self._valid is not None:
            return self._valid.read()
        device = self._position.read().device
        if not self.ragged:
            return all_true((*self.counts.shape, self.slots), device)
        return on_device(np.arange(self.slots) >= (self.slots - self.counts)[..., None], device)

    @property
    def groups(self) -> int:
        """G."""
        return int(self.counts.shape[1])

    @property
    def aligned(self) -> bool:
        """True if the host knows that hidden slots all come first."""
        return self._valid is None

    @property
    def ragged(self) -> bool:
        """True if some slot has to be hidden from attention."""
        return bool((self.counts < self.slots).any())

    def places(self) -> Tensor:
        """(B, G, K) int64: number of each entry among those that its row holds."""
        return (self.valid.long().cumsum(-1) - 1).clamp_min(0)

    def in_window(self, window: int, new: int = 1) -> Tensor:
        """(B, G, T, K) bool: entries that the newest T = ``new`` tokens look back on."""
        queries = self.position[:, :, self.slots - new :, None]
        return queries - self.position[:, :, None, :] < window

    def within(self, window: int) -> bool:
        """True if the newest token's window hides no entry."""
        if self._reach is None:
            newest = self.position[..., -1:]
            oldest = torch.where(self.valid, self.position, newest).amin(-1)
            # How far back entries lie; tokens that join only move it on.
            self._reach = on_host(newest[..., 0] - oldest)
        return bool((self._reach < window).all())

    def retain(self, layer: Any, retention: Retention) -> None:
        """Cut to what an evictor keeps, evicted entries merged into kept ones where it says so.

        Args:
            layer: The layer's cache.
            retention: What stays.
        """
        layer.keys = retention.apply(layer.keys)
        layer.values = retention.apply(layer.values)
        index = retention.index
        # A retention that knows how many entries it keeps keeps no hidden slot.
        before = self.valid if self.ragged and retention.held is None else None
        self._position.then(lambda position: _picked(position, index))
        if self.score is not None:
            self.score = _picked(self.score, index)
        self._valid = None
        if before is not None:
            self._valid = Later(retention.valid)
            self._valid.then(lambda valid: valid & _picked(before, index))
        self.slots = int(index.shape[-1])
        self.recount(on_host(retention.counts))

    def recount(self, counts: NDArray[np.int64]) -> None:
        """Note how many entries (B, G) are held."""
        self.counts = counts
        self.mask = self._reach = None
        if not self.ragged:
            self._valid = None

    def join(self, position: Tensor, real: Tensor, counts: NDArray[np.int64]) -> None:
        """Note new tokens.

        Args:
            position: (B, T) int64, their places in their rows.
            real: (B, T) bool, False for padding.
            counts: (B,) int64 on the host, how many are real.
        """
        new = int(position.shape[1])
        padded = bool((counts < new).any())
        if self._valid is None and padded:
            self._valid = Later(self.valid)
        if self._valid is not None:
            self._valid.join(real)
        if padded:
            self.mask = None
        self._position.join(position)
        self.slots += new
        self.counts = self.counts + counts[:, None]
        if self._reach is not None:
            self._reach = self._reach + counts[:, None]
        if self.rotated is not None:
            self.rotated = torch.cat([self.rotated, self.places()[..., self.slots - new :]], -1)

    def hide_since(self, lengths: Tensor) -> None:
        """Forget entries at position ``lengths`` (B,) and later; they keep their slots."""
        valid = self.valid & (self.position < lengths[:, None, None])
        self._valid = Later(valid)
        self.recount(on_host(valid.sum(-1)))

    def drop(self, layer: Any, leaving: Tensor, counts: NDArray[np.int64] | None = None) -> None:
        """Evict the marked entries; slots that are free in every row are removed.

        Args:
            layer: The layer's cache.
            leaving: (B, 1 or G, K) bool.
            counts: (B, G) int64 on the host, how many are marked; None if the host does not know.
        """
        valid = self.valid & ~leaving
        left = on_host(valid.sum(-1)) if counts is None else self.counts - counts
        self._valid = Later(valid)
        if left.max() < self.slots:
            self._gather(layer, compact(valid, left)[0])
            self._valid = None
        self.recount(left)

    def drop_victims(self, layer: Any, victim: Tensor, leaving: NDArray[np.int64]) -> None:
        """Evict at most one entry of each row and group, where hidden slots all come first.

        Args:
            layer: The layer's cache.
            victim: (B, G) int64, its slot; -1 where none leaves.
            leaving: (B, G) on the host, 1 where one leaves, else 0.
        """
        left, mask = self.counts - leaving, self.mask
        slots = consecutive(self.slots, victim.device)
        # Entries before the victim move up by one. The slot that becomes free is the first; where
        # it is so in every row, it is given back.
        if left.max() < self.slots:
            earlier = slots[:-1]
            index = earlier + (earlier >= victim[..., None])
        else:
            earlier = slots - 1
            index = (earlier + (earlier >= victim[..., None])).clamp_min(0)
        self._gather(layer, index)
        self.recount(left)
        if leaving.all():
            self.mask = mask  # as many slots are hidden as before

    def drop_slot(self, layer: Any, slot: int) -> None:
        """Evict the same slot of all rows and groups where every slot holds an entry."""

        def cut(values: Tensor) -> Tensor:
            return torch.cat([values[:, :, :slot], values[:, :, slot + 1 :]], 2)

        layer.keys, layer.values = cut(layer.keys), cut(layer.values)
        self._position = Later(cut(self.position))
        self.score = None if self.score is None else cut(self.score)
        self.rotated = None if self.rotated is None else cut(self.rotated)
        self.slots -= 1
        self.recount(self.counts - 1)

    def _gather(self, layer: Any, index: Tensor) -> None:
        """Keep the slots at ``index`` (B, G, K)."""
        kv_heads, width = layer.keys.shape[1], layer.keys.shape[3]
        # (B, G, K) as (B, H_kv, K, d): one group decides for all heads, or each head for itself
        where = index.expand(-1, kv_heads, -1)[..., None].expand(-1, -1, -1, width)
        layer.keys = layer.keys.gather(2, where)
        layer.values = layer.values.gather(2, where)
        self._position = Later(_picked(self.position, index))
        self.score = None if self.score is None else _picked(self.score, index)
        self.rotated = None if self.rotated is None else _picked(self.rotated, index)
        self.slots = int(index.shape[-1])


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Values (B, 1 or G, N) at ``index`` (B, G, K)."""
    return values.expand(-1, index.shape[1], -1).gather(2, index)


def _left_padded(layout: TokenLayout) -> bool:
    """True if padding all comes first."""
    real = layout.arrays["position"] >= 0
    return bool((real[:, :-1] <= real[:, 1:]).all())
