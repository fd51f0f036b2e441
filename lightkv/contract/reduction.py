"""Reductions: which old token goes into which new one, and with what weight.

A reduction is the value every prefill method returns.  A merge has several sources per target, a
prune none but the survivor itself.  Each old token goes to at most one new token, so the
assignment is kept sparse: two vectors per row instead of a K x N matrix.  Composing reductions
gives the provenance of every surviving token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.host import all_true, consecutive, on_device, on_host

Rule = Literal["mean", "norm-preserving"]


@dataclass(frozen=True)
class Reduction:
    """Assignment of N old tokens to K new ones for each of B rows.

    Attributes:
        index: (B, K) int64, old position of each new token's representative, ascending where
            valid. Rows with fewer survivors have their invalid slots first (left padding).
        valid: (B, K) bool.
        target: (B, N) int64, new slot that each old token went into, -1 if it was dropped.
        weight: (B, N) float32 or float64, weight in that slot. The weights of a slot sum to 1.
        rule: "mean" is the weighted mean; "norm-preserving" rescales it to the largest norm in
            the group (MLERP: ToFu, arXiv 2312.01026).
        filled: True if the host knows that every slot is valid.
        whole: True if the host knows that no old token was dropped.
    """

    index: Tensor
    valid: Tensor
    target: Tensor
    weight: Tensor
    rule: Rule = "mean"
    filled: bool = False
    whole: bool = False

    @property
    def old_length(self) -> int:
        return int(self.target.shape[1])

    @property
    def new_length(self) -> int:
        return int(self.index.shape[1])

    @cached_property
    def slot(self) -> Tensor:
        """(B, N) int64: ``target``, but K, an extra slot, where the old token was dropped."""
        return self.target if self.whole else _spared(self.target, self.new_length)

    @property
    def is_identity(self) -> bool:
        """True if nothing is merged or dropped."""
        return self.new_length == self.old_length and bool(
            (self.index == torch.arange(self.old_length, device=self.index.device)).all()
        )

    @classmethod
    def identity(
        cls, batch_size: int, length: int, device: torch.device | str = "cpu"
    ) -> Reduction:
        """The reduction that changes nothing."""
        index = torch.arange(length, device=device).expand(batch_size, length)
        ones = torch.ones(batch_size, length, device=device)
        return cls(index, ones.bool(), index, ones, filled=True, whole=True)

    @classmethod
    def from_keep(cls, keep: Tensor) -> Reduction:
        """Prune: keep the marked tokens as they are.

        Args:
            keep: (B, N) bool.
        """
        counts = counted(keep)
        index, valid = compact(keep, counts)
        slot = _slots(index, valid, keep.shape[1])
        return cls(index, valid, slot, (slot >= 0).to(torch.float32), filled=_alike(counts))

    @classmethod
    def from_groups(
        cls,
        representative: Tensor,
        importance: Tensor,
        rule: Rule = "mean",
        *,
        counts: NDArray[np.int64] | None = None,
        whole: bool = False,
    ) -> Reduction:
        """Merge: tokens of the same representative become one, weighted by importance.

        Args:
            representative: (B, N) int64, old position of the token that each old token goes into;
                its own position for a survivor, -1 for a token that is dropped. A token that goes
                into one that does not survive is dropped too.
            importance: (B, N) float, non-negative. A group whose importances sum to zero is
                averaged uniformly. A group of one keeps its token bit for bit.
            rule: How a group becomes one token.
            counts: (B,) on the host, survivors of each row; without them the host has to wait.
            whole: True if the host knows that no token is dropped.
        """
        survives = representative == consecutive(representative.shape[1], representative.device)
        counts = counted(survives) if counts is None else counts
        filled = _alike(counts)
        index, valid = compact(survives, counts)
        # A survivor's slot is its place among the survivors, after those that are padding.
        survivors = index.contiguous() if filled else index.masked_fill(~valid, -1)
        target = torch.searchsorted(survivors, representative)
        if not whole:
            joins = (representative >= 0) & survives.gather(1, representative.clamp_min(0))
            target = target.masked_fill(~joins, -1)
        width = index.shape[1]
        weight = _shares(importance, target if whole else _spared(target, width), width)
        if not whole:
            weight = weight.masked_fill(target < 0, 0)
        return cls(index, valid, target, weight, rule, filled, whole)

    def apply(self, values: Tensor) -> Tensor:
        """Apply to per-token values.

        Args:
            values: (B, N, D). Sums run in float32 at least; a token that stays alone is copied
                bit for bit.

        Returns:
            (B, K, D), zeros in invalid slots.
        """
        slot = self.slot[..., None]
        wide = torch.promote_types(values.dtype, torch.float32)
        weight = self.weight.to(wide)[..., None]
        shape = (values.shape[0], self.new_length + 1, values.shape[2])
        out = torch.zeros(shape, dtype=wide, device=values.device)
        out.scatter_add_(1, slot.expand_as(values), values.to(wide) * weight)
        if self.rule == "norm-preserving":
            norms = values.to(wide).norm(dim=-1, keepdim=True)
            largest = torch.zeros(*shape[:2], 1, dtype=wide, device=values.device)
            largest.scatter_reduce_(1, slot, norms, "amax")
            merged = self.sizes()[..., None] > 1
            mean_norm = out[:, :-1].norm(dim=-1, keepdim=True).clamp_min(1e-12)
            kept = torch.where(merged, out[:, :-1] * (largest[:, :-1] / mean_norm), out[:, :-1])
            return kept.to(values.dtype)
        return out[:, :-1].to(values.dtype)

    def take(self, values: Tensor) -> Tensor:
        """Representatives' own values, (B, K, ...), of per-token values (B, N, ...)."""
        tail = values.shape[2:]
        index = self.index.view(*self.index.shape, *[1] * len(tail))  # (B, K, 1, ...)
        return values.gather(1, index.expand(*self.index.shape, *tail))

    def sizes(self) -> Tensor:
        """(B, K) int64: how many old tokens each new token stands for."""
        return self.summed(torch.ones_like(self.target))

    def summed(self, counts: Tensor) -> Tensor:
        """(B, K) int64: counts (B, N) of the old tokens, summed over those of each new one."""
        total = counts.new_zeros(len(counts), self.new_length + 1)
        return total.scatter_add_(1, self.slot, counts)[:, :-1]

    def then(self, later: Reduction) -> Reduction:
        """This reduction followed by another: the product of the two assignments."""
        chained = later.target.gather(1, self.target.clamp_min(0))
        target = torch.where(self.target >= 0, chained, -1)
        weight = self.weight * later.weight.to(self.weight.dtype).gather(
            1, self.target.clamp_min(0)
        )
        weight = torch.where(target >= 0, weight, torch.zeros_like(weight))
        return Reduction(self.index.gather(1, later.index), later.valid, target, weight, later.rule)

    def matrix(self) -> Tensor:
        """Dense (B, K, N) weights: the definition, for pictures and checks."""
        slots = torch.arange(self.new_length, device=self.target.device)
        # (B, 1, N) beside slots (1, K, 1)
        return (self.target[:, None, :] == slots[None, :, None]) * self.weight[:, None, :]


def compact(
    keep: Tensor, counts: NDArray[np.int64] | None = None, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Positions of the marked entries, left-padded to the longest row.

    Args:
        keep: (..., N) bool.
        counts: (...) on the host, how many entries are marked; without them the host has to wait.
        width: Slots K; default those of the longest row.

    Returns:
        index (..., K) int64, ascending, and valid (..., K) bool; invalid slots come first.
    """
    if counts is None:
        counts = counted(keep)
    if width is None:
        width = int(counts.max(initial=0))
    # A stable sort moves unmarked entries to the front and keeps the order of the marked ones.
    order = torch.argsort(keep.to(torch.int8), dim=-1, stable=True)
    index = order[..., keep.shape[-1] - width :]
    if (counts == width).all():
        return index, all_true(index.shape, keep.device)
    return index, on_device(np.arange(width) >= (width - counts)[..., None], keep.device)


def counted(keep: Tensor) -> NDArray[np.int64]:
    """(...) on the host: how many entries of (..., N) bool are marked."""
    counts: NDArray[np.int64] = keep.sum(-1).cpu().numpy()
    return counts


def compact_each(keep: Tensor, counts: Tensor) -> list[tuple[Tensor, Tensor]]:
    """:func:`compact` of each of n masks, each left-padded to its own longest row.

    Args:
        keep: (n, ..., N) bool.
        counts: (n, ...) int64 on the host: how many entries are marked.
    """
    length = keep.shape[-1]
    order, valid = compact(keep, on_host(counts), length)
    longest = counts.numpy().reshape(len(counts), -1).max(1).tolist()
    if len(set(longest)) == 1:
        start = length - longest[0]
        alike = order[..., start:].unbind(0), valid[..., start:].unbind(0)
        return list(zip(*alike, strict=True))
    return [
        (index[..., length - most :], there[..., length - most :])
        for index, there, most in zip(order.unbind(0), valid.unbind(0), longest, strict=True)
    ]


def _slots(index: Tensor, valid: Tensor, length: int) -> Tensor:
    """(B, N) new slot of each old position, -1 where it did not survive."""
    slot = torch.full((index.shape[0], length + 1), -1, dtype=torch.int64, device=index.device)
    numbers = torch.arange(index.shape[1], device=index.device).expand_as(index)
    slot.scatter_(1, torch.where(valid, index, length), numbers)
    return slot[:, :length]


def _spared(target: Tensor, width: int) -> Tensor:
    """Slots, but ``width``, an extra slot, where the token was dropped."""
    return target.masked_fill(target < 0, width)


def _alike(counts: NDArray[np.int64]) -> bool:
    return len(set(counts.tolist())) <= 1


def _shares(importance: Tensor, slot: Tensor, width: int) -> Tensor:
    """(B, N) importance of each token as a share of its slot's; alike where that sums to zero."""
    value = importance.to(torch.promote_types(importance.dtype, torch.float32))
    # Two sums over each slot: of what its tokens count for, and of their number.
    summands = torch.stack([value, torch.ones_like(value)])  # (2, B, N)
    where = slot.expand_as(summands)
    sums = summands.new_zeros(2, len(slot), width + 1)
    total, count = sums.scatter_add_(2, where, summands).gather(2, where)
    return torch.where(total > 0, value / total, count.reciprocal())
