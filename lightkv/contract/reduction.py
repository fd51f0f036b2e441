"""Reductions: which old token goes into which new one, and with what weight.

A reduction is the value every prefill method returns.  A merge has several sources per target, a
prune none but the survivor itself.  Each old token goes to at most one new token, so the
assignment is kept sparse: two vectors per row instead of a K x N matrix.  Composing reductions
gives the provenance of every surviving token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
    """

    index: Tensor
    valid: Tensor
    target: Tensor
    weight: Tensor
    rule: Rule = "mean"
    filled: bool = False

    @property
    def old_length(self) -> int:
        return int(self.target.shape[1])

    @property
    def new_length(self) -> int:
        return int(self.index.shape[1])

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
        return cls(index, ones.bool(), index, ones, filled=True)

    @classmethod
    def from_keep(cls, keep: Tensor) -> Reduction:
        """Prune: keep the marked tokens as they are.

        Args:
            keep: (B, N) bool.
        """
        index, valid = compact(keep)
        slot = _slots(index, valid, keep.shape[1])
        # Nothing is padded where there is nothing to be padded to.
        return cls(index, valid, slot, (slot >= 0).to(torch.float32), filled=len(keep) == 1)

    @classmethod
    def from_groups(
        cls,
        representative: Tensor,
        importance: Tensor,
        rule: Rule = "mean",
        *,
        width: int | None = None,
    ) -> Reduction:
        """Merge: tokens of the same representative become one, weighted by importance.

        Args:
            representative: (B, N) int64, old position of the token that each old token goes into;
                its own position for a survivor, -1 for a token that is dropped.
            importance: (B, N) float, non-negative. A group whose importances sum to zero is
                averaged uniformly. A group of one keeps its token bit for bit.
            rule: How a group becomes one token.
            width: Survivors K of the row that has most, where the host knows it.
        """
        length = representative.shape[1]
        places = torch.arange(length, device=representative.device)
        index, valid = compact(representative == places, width)
        slot = _slots(index, valid, length)
        member = representative >= 0
        target = torch.where(member, slot.gather(1, representative.clamp_min(0)), -1)
        weight = _normalise(importance, target, member, index.shape[1])
        return cls(index, valid, target, weight, rule, filled=len(index) == 1)

    def apply(self, values: Tensor) -> Tensor:
        """Apply to per-token values.

        Args:
            values: (B, N, D). Sums run in float32 at least; a token that stays alone is copied
                bit for bit.

        Returns:
            (B, K, D), zeros in invalid slots.
        """
        # One spare slot collects what is dropped, so that no index is out of range.
        slot = torch.where(self.target >= 0, self.target, self.new_length)[..., None]
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
        slot = torch.where(self.target >= 0, self.target, self.new_length)
        total = counts.new_zeros(slot.shape[0], self.new_length + 1)
        return total.scatter_add_(1, slot, counts)[:, :-1]

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


def compact(keep: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Positions of the marked entries, left-padded to the longest row.

    Args:
        keep: (..., N) bool.
        width: Entries K of the longest row, where the host knows it; else it has to wait for it.

    Returns:
        index (..., K) int64, ascending, and valid (..., K) bool; invalid slots come first.
    """
    count = keep.sum(-1)
    if width is None:
        width = int(count.max()) if count.numel() else 0
    # A stable sort moves unmarked entries to the front and keeps the order of the marked ones.
    order = torch.argsort(keep.to(torch.int8), dim=-1, stable=True)
    index = order[..., keep.shape[-1] - width :]
    slots = torch.arange(width, device=keep.device)
    return index, slots >= (width - count)[..., None]


def compact_each(keep: Tensor, counts: Tensor) -> list[tuple[Tensor, Tensor]]:
    """:func:`compact` of each of n masks, each left-padded to its own longest row.

    Args:
        keep: (n, ..., N) bool.
        counts: (n, ...) int64 on the host: how many entries are marked.
    """
    length = keep.shape[-1]
    order, valid = compact(keep, length)
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


def _normalise(importance: Tensor, target: Tensor, member: Tensor, width: int) -> Tensor:
    """Weights per group that sum to 1; exactly 1 for a group of one."""
    wide = torch.promote_types(importance.dtype, torch.float32)
    value = torch.where(member, importance.to(wide), 0)
    slot = torch.where(member, target, width)
    total = torch.zeros(*slot.shape[:1], width + 1, dtype=wide, device=slot.device)
    count = torch.zeros_like(total)
    total.scatter_add_(1, slot, value)
    count.scatter_add_(1, slot, member.to(wide))
    total, count = total.gather(1, slot), count.gather(1, slot)  # (B, N), of the group of each
    uniform = 1 / count.clamp_min(1)
    weight = torch.where(total > 0, value / total.clamp_min(torch.finfo(wide).tiny), uniform)
    weight = torch.where(count == 1, torch.ones_like(weight), weight)
    return torch.where(member, weight, torch.zeros_like(weight))
