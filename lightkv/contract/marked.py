"""Marked positions of each row of a batch, looked for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightkv.contract.host import all_true, consecutive, on_device, on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import compact, counted


@dataclass(frozen=True)
class Marked:
    """Marked positions.

    Attributes:
        index: (B, T) int64, ascending; rows with fewer have their invalid slots first.
        valid: (B, T) bool.
        filled: True if the host knows that every slot is valid.
    """

    index: Tensor
    valid: Tensor
    filled: bool = False

    @classmethod
    def of(cls, marked: Tensor | Marked) -> Marked:
        """The marked positions of (B, N) bool; a :class:`Marked` is returned as it is."""
        if isinstance(marked, Marked):
            return marked
        counts = counted(marked)
        filled = bool((counts == counts.max(initial=0)).all())
        return cls(*compact(marked, counts), filled)

    @classmethod
    def everywhere(cls, batch: int, length: int, device: torch.device) -> Marked:
        """All positions."""
        index = consecutive(length, device).expand(batch, -1)
        return cls(index, all_true(index.shape, device), filled=True)


def tokens(layout: TokenLayout, kind: Literal["real", "vision", "text", "question"]) -> Marked:
    """Positions of a layout's tokens of one kind, found on the host."""
    mask = on_host(getattr(layout.host, kind))
    counts = mask.sum(1)
    width = counts.max(initial=0)
    index = np.argsort(mask, axis=1, kind="stable")[:, layout.length - width :]
    valid = np.arange(width) >= (width - counts)[:, None]
    device = layout.kind.device
    return Marked(on_device(index, device), on_device(valid, device), bool(valid.all()))


@dataclass(frozen=True)
class Picked:
    """Marked positions of each row of a layout, looked for once.

    Attributes:
        index: (B, T) int64, ascending; rows with fewer have their invalid slots first.
        place: (B, N) int64, number of each position in ``index``; 0 for those that are not there.
        span: First and last plus one, where all rows have the same positions and they are one run.
    """

    index: Tensor
    place: Tensor
    span: slice | None

    @classmethod
    def of(cls, marked: Tensor) -> Picked:
        """Look for the marked positions of (B, N) bool."""
        length = marked.shape[1]
        places = torch.arange(length, device=marked.device)
        first = torch.where(marked, places, length).amin(1)
        last = torch.where(marked, places, -1).amax(1)
        ends = torch.stack([first, last, marked.sum(1)], 1).tolist()
        width = max((count for _, _, count in ends), default=0)
        index, _ = compact(marked, np.array([count for _, _, count in ends]))
        place = torch.zeros_like(marked, dtype=torch.int64)
        place.scatter_(1, index, torch.arange(width, device=marked.device).expand_as(index))
        return cls(index, place, _span(ends, width, length))

    def rows(self, values: Tensor) -> Tensor:
        """(B, H, T, ...) of values (B or 1, H, N, ...), as a copy."""
        if self.span is not None:
            return values[:, :, self.span].clone()
        index = self.index[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
        # (B, H, T, ...) as the index says
        return values.expand(index.shape[0], *values.shape[1:]).gather(2, index)


def _span(ends: Sequence[Sequence[int]], width: int, length: int) -> slice | None:
    """The run of ``width`` positions that all rows have marked, as (first, last, count) say."""
    runs = all(count == last + 1 - first for first, last, count in ends)
    lasts = {last for _, last, _ in ends}
    # At the end of the sequence invalid slots lie right before a shorter run, so they are in it.
    alike = len({count for _, _, count in ends}) == 1 or lasts == {length - 1}
    if not (width and runs and alike and len(lasts) == 1):
        return None
    stop = lasts.pop() + 1
    return slice(stop - width, stop)
