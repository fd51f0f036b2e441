"""From what each layer would like to what each layer gets: clipping, redistribution, rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Allocation:
    """Budgets of all layers.

    Attributes:
        entries: (B, L) int64, entries that each layer keeps, protected ones included.
        requested: (B, L) float64, what was asked for before protection and rounding.
        ratio: (B, L) float32, the layer's share of its entries, for decode policies.
    """

    entries: Tensor
    requested: Tensor
    ratio: Tensor


def allot(wishes: Tensor, floors: Tensor, lengths: Tensor, redistribute: bool) -> Allocation:
    """Fit real-valued wishes into whole numbers that every layer can keep.

    Args:
        wishes: (B, L) float64, finite, not negative.
        floors: (B, L) int64, protected entries; no layer can keep fewer.
        lengths: (B, L) int64, entries there are; no layer can keep more.
        redistribute: Hand what clipping frees (or takes) to the other layers in proportion to
            their wishes, so that the budgets sum to ``round(wishes.sum(1))`` whenever
            ``floors.sum(1) <= wishes.sum(1) <= lengths.sum(1)``. Otherwise clip layer by layer.
    """
    if redistribute:
        total = wishes.sum(1, keepdim=True)
        filled = fill(wishes, floors.double(), lengths.double())
        entries = round_to_sum(filled).clamp(floors, lengths)
        possible = (floors.sum(1, keepdim=True) <= total) & (total <= lengths.sum(1, keepdim=True))
        requested = torch.where(possible, filled, wishes)
    else:
        requested = wishes
        entries = wishes.round().long().clamp(floors, lengths)
    ratio = (requested / lengths.clamp_min(1)).float()
    return Allocation(entries, requested, ratio)


def fill(wishes: Tensor, floors: Tensor, ceilings: Tensor) -> Tensor:
    """Scale wishes by the one factor at which, clipped, they sum to what they summed to.

    The sum of the clipped wishes is piecewise linear in the factor with its breaks where a layer
    meets its floor or ceiling, so the factor is found exactly, without iterating.

    Args:
        wishes, floors, ceilings: (B, L) float64.

    Returns:
        (B, L) float64 within [floors, ceilings].
    """
    total = wishes.sum(1, keepdim=True)
    # A layer that wants nothing still takes what the others can't hold.
    weight = torch.maximum(wishes, 1e-9 * wishes.amax(1, keepdim=True)).clamp_min(1e-9)
    breaks = torch.cat([floors / weight, ceilings / weight], 1).sort(1).values  # (B, 2L)
    clipped = _clip(breaks[..., None] * weight[:, None], floors[:, None], ceilings[:, None])
    sums = clipped.sum(2)  # (B, 2L), ascending
    last = breaks.shape[1] - 1
    upper = torch.searchsorted(sums, total).clamp(1, last)
    low, high = sums.gather(1, upper - 1), sums.gather(1, upper)
    start, end = breaks.gather(1, upper - 1), breaks.gather(1, upper)
    step = ((total - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return _clip((start + step * (end - start)) * weight, floors, ceilings)


def round_to_sum(values: Tensor) -> Tensor:
    """Round (B, L) to int64 by largest remainder: rows sum to their rounded sum.

    Equal remainders go to the lower layer first.
    """
    # Sums of shares carry rounding noise; without this a whole number may look like one less.
    steady = (values * 2**30).round() / 2**30
    whole = steady.floor()
    extra = steady.sum(1, keepdim=True).round() - whole.sum(1, keepdim=True)
    order = torch.argsort(steady - whole, dim=1, descending=True, stable=True)
    place = torch.argsort(order, dim=1)
    return (whole + (place < extra)).long()


def _clip(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(values, low), high)
