"""What replays of evictors share: layers from arrays, and comparing what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.compressor import Compressor
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.retention import Retention
from lightkv.contract.view import LayerView
from lightkv.errors import UnsupportedError
from lightkv.eviction import Evicting

Case = Mapping[str, Any]
Arrays = Mapping[str, npt.NDArray[Any]]

CLOSE = 1e-4  # of the largest magnitude


def tensor(array: npt.NDArray[Any]) -> Tensor:
    """An array as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(array))


def evicting(compressor: Compressor, *, protect_last: int) -> Evicting:
    """A method that protects no first entry, as in the reference codes.

    Raises:
        UnsupportedError: If it is not a composition.
    """
    if not isinstance(compressor, Evicting):
        raise UnsupportedError(f"{type(compressor).__name__} is not a composition")
    return replace(compressor, protect_first=0, protect_last=protect_last)


def view(
    keys: Tensor, attention: Attention | None = None, values: Tensor | None = None, text: int = 1
) -> LayerView:
    """A layer of a prompt of vision tokens, of which the last ``text`` are text.

    Args:
        keys: (B, H_kv, N, d).
        attention: Of the layer, where the method reads it.
        values: (B, H_kv, N, d), where the method reads them.
        text: Number of text tokens.
    """
    batch, _, length, _ = keys.shape
    vision = [int(TokenKind.VISION)] * (length - text)
    one = single_layout(vision + [int(TokenKind.TEXT)] * text, [Grid(1, 1, length - text)])
    layout = TokenLayout.stack([one] * batch)
    hidden = torch.zeros(batch, length, 1)
    return LayerView(
        layer=0,
        layers=1,
        hidden=hidden,
        layout=layout,
        sizes=layout.real.long(),
        attention=attention,
        keys=keys,
        values=values,
    )


def last_rows(rows: Tensor) -> Tensor:
    """Attention (B, H, N, N) whose last rows are ``rows`` (B, H, P, N), zero above."""
    batch, heads, count, length = rows.shape
    full = torch.zeros(batch, heads, length, length)
    full[:, :, length - count :] = rows
    return full


def compare_kept(name: str, retention: Retention, wanted: Tensor) -> list[str]:
    """A line per row and head (B, H_kv, K) whose kept set, padded with -1, differs."""
    lines = []
    batch, heads, _ = wanted.shape
    for row in range(batch):
        for head in range(heads):
            group = head % retention.index.shape[1]
            ours = retention.index[row, group][retention.valid[row, group]].tolist()
            theirs = sorted(wanted[row, head][wanted[row, head] >= 0].tolist())
            if ours != theirs:
                lines.append(f"{name}, row {row}, head {head}: {ours} instead of {theirs}")
    return lines


def compare_numbers(name: str, ours: Tensor, theirs: npt.NDArray[Any]) -> list[str]:
    """A line if numbers differ by more than a small share of the largest of them."""
    wanted = tensor(theirs)
    if ours.shape != wanted.shape:
        return [f"{name}: shape {tuple(ours.shape)} instead of {tuple(wanted.shape)}"]
    apart = float((ours.double() - wanted.double()).abs().max())
    if apart <= CLOSE * float(wanted.abs().max()):
        return []
    return [f"{name}: differs by up to {apart:.3g}"]


def compare_masks(
    name: str, retentions: Sequence[Retention], wanted: Tensor, sinks: int
) -> list[str]:
    """A line per layer and head whose entries after the sinks are not those marked (L, H_kv, c)."""
    lines = []
    for layer, (retention, marks) in enumerate(zip(retentions, wanted, strict=True)):
        marked = [
            [*range(sinks), *(mark.nonzero()[:, 0] + sinks).tolist()] for mark in marks.bool()
        ]
        longest = max(len(one) for one in marked)
        padded = torch.tensor([one + [-1] * (longest - len(one)) for one in marked])
        lines += compare_kept(f"{name}, layer {layer}", retention, padded[None])
    return lines
