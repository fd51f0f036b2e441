"""Entries that no method may drop: attention sinks, the end of the prompt, the system text."""

from __future__ import annotations

import torch
from torch import Tensor

from lightkv.contract.layout import TokenKind, TokenLayout


def slots(layout: TokenLayout) -> Tensor:
    """(B, N) int64: number of each entry within its own row, padding left out."""
    return layout.real.cumsum(1) - 1


def no_position(layout: TokenLayout) -> Tensor:
    """(B, N) bool, all False: no position is protected."""
    return torch.zeros_like(layout.real)


def ends(layout: TokenLayout, first: int, last: int | Tensor) -> Tensor:
    """(B, N) bool: the first and last real entries of each row; ``last`` may be (B, 1).

    They are counted in the entries that the layer holds, so that a layer which was shortened
    during prefill protects as many as any other.
    """
    slot, length = slots(layout), layout.prompt_lengths[:, None]
    return layout.real & ((slot < first) | (slot >= length - last))


def protected(layout: TokenLayout, first: int, last: int, system: bool = False) -> Tensor:
    """(B, N) bool: :func:`ends`, and the text before the first image if ``system`` is set."""
    mask = ends(layout, first, last)
    return mask | (layout.kind == TokenKind.SYSTEM) if system else mask
