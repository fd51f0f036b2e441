"""From what each layer would like to what each layer gets: clipping, redistribution, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spread = Literal["proportional", "even"]


@dataclass(frozen=True)
class Allocation:
    """Budgets of all layers.

    Attributes:
        entries: (B, L) int64, entries that each layer keeps, protected ones included.
        requested: (B, L) float64, what was asked for before protection and rounding; rows sum to
            what the user asked for. Where the layers must hold more than that together, or can't
            hold as much, it is shared out as what they hold.
        ratio: (B, L) float32, the layer's share of its entries, for decode policies.
        least: (B, L) int64, entries that stay by design even where that is more than requested;
            None for no such thing.
        recent: (B, L) int64, last entries that stay for sure, paid from ``entries``; None for none.
    """

    entries: Tensor
    requested: Tensor
    ratio: Tensor
    least: Tensor | None = None
    recent: Tensor | None = None


def allot(
    wishes: Tensor,
    floors: Tensor,
    lengths: Tensor,
    redistribute: bool,
    spread: Spread = "proportional",
) -> Allocation:
    """Fit real-valued wishes into whole numbers that every layer can keep.

    Args:
        wishes: (B, L) float64, finite, not negative.
        floors: (B, L) int64, protected entries; no layer can keep fewer.
        lengths: (B, L) int64, entries there are; no layer can keep more.
        redistribute: Hand what clipping frees (or takes) to the other layers, so that the budgets
            sum to ``round(wishes.sum(1))`` whenever
            ``floors.sum(1) <= wishes.sum(1) <= lengths.sum(1)``. Otherwise clip layer by layer.
        spread: How it is handed on: in proportion to the wishes, or to all alike.
    """
    if redistribute:
        total = wishes.sum(1, keepdim=True)
        filled = fill(wishes, floors.double(), lengths.double(), spread)
        entries = round_to_sum(filled).clamp(floors, lengths)
        possible = (floors.sum(1, keepdim=True) <= total) & (total <= lengths.sum(1, keepdim=True))
        # Where the total is out of reach every layer is at its end, and its part of it beyond that.
        beyond = filled * (total / filled.sum(1, keepdim=True).clamp_min(1))
        requested = torch.where(possible, filled, beyond)
    else:
        requested = wishes
        entries = steadied(wishes).round().long().clamp(floors, lengths)
    ratio = (requested / lengths.clamp_min(1)).float()
    return Allocation(entries, requested, ratio)


def fill(wishes: Tensor, floors: Tensor, ceilings: Tensor, spread: Spread) -> Tensor:
    """Change wishes until, clipped, they sum to what they summed to.

    All wishes are multiplied by one factor ("proportional") or raised by one amount ("even").  The
    clipped sum is piecewise linear in that number, with its breaks where a layer meets its floor
    or ceiling, so the number is found exactly, without iterating.

    Args:
        wishes: (B, L) float64, not clipped.
        floors: (B, L) float64, at most the ceilings.
        ceilings: (B, L) float64.
        spread: Which of the two.

    Returns:
        (B, L) float64 within [floors, ceilings].
    """
    total = wishes.sum(1, keepdim=True)
    if spread == "even":
        slope, offset = torch.ones_like(wishes), wishes
    else:
        # A layer that wants nothing still takes what the others can't hold.
        slope = torch.maximum(wishes, 1e-9 * wishes.amax(1, keepdim=True)).clamp_min(1e-9)
        offset = torch.zeros_like(wishes)

    def clipped(numbers: Tensor) -> Tensor:
        """(B, E, L) wishes under each of the numbers (B, E)."""
        moved = offset[:, None] + numbers[..., None] * slope[:, None]
        return torch.minimum(torch.maximum(moved, floors[:, None]), ceilings[:, None])

    breaks = torch.cat([(floors - offset) / slope, (ceilings - offset) / slope], 1)
    breaks = breaks.sort(1).values  # (B, 2L)
    sums = clipped(breaks).sum(2)
    upper = torch.searchsorted(sums, total).clamp(1, breaks.shape[1] - 1)
    low, high = sums.gather(1, upper - 1), sums.gather(1, upper)
    start, end = breaks.gather(1, upper - 1), breaks.gather(1, upper)
    step = ((total - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return clipped(start + step * (end - start))[:, 0]


def steadied(entries: Tensor) -> Tensor:
    """Numbers of entries on a grid of 1/1024.

    Strengths are sums in single precision: layers that attend alike differ in their last bits,
    one way on one processor and another way on the next. On the grid they are equal, and a whole
    number doesn't look like one less.
    """
    return (entries * 1024).round() / 1024


def round_to_sum(values: Tensor) -> Tensor:
    """Round (B, L) to int64 by largest remainder: rows sum to their rounded sum.

    Ties and near-ties: what differs by less than a thousandth of an entry counts as equal, and
    equal remainders go to the lower layer first. A sum half-way between two numbers goes to the
    even one.
    """
    steady = steadied(values)
    whole = steady.floor()
    total = steadied(values.sum(1, keepdim=True)).round()
    extra = total - whole.sum(1, keepdim=True)
    order = torch.argsort(steady - whole, dim=1, descending=True, stable=True)
    place = torch.argsort(order, dim=1)
    return (whole + (place < extra)).long()
