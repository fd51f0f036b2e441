"""Masks of attention: of a shortened prefill, and of new tokens against a layer's own entries."""

from __future__ import annotations

import torch
from torch import Tensor

from lightkv.engine.cache import LayerEntries

# Columns that a step's mask has to spare, so that the next steps only take more of it.
SPARE_COLUMNS = 256


def decode_mask(
    entries: LayerEntries,
    heads: int,
    additive: torch.dtype | None,
    new: int = 1,
    window: int | None = None,
) -> Tensor | None:
    """Mask of ``new`` tokens T that joined the cache, (B, 1 or H, T, K), or None if it hides none.

    None matters: a mask that hides nothing selects another kernel and changes the last bits.

    Args:
        entries: The layer's entries, the new tokens included.
        heads: Number of query heads H.
        additive: Dtype of an additive mask (eager attention), None for a boolean one (SDPA).
        new: Number of tokens that were fed.
        window: Tokens of the row that a query looks back on, itself included; None for all.
    """
    if new == 1 and (window is None or entries.within(window)):
        return widened(entries, heads, additive) if entries.ragged else None
    visible = _per_head(entries.valid, heads)
    slots = torch.arange(entries.slots, device=visible.device)
    causal = slots[None, :] <= slots[entries.slots - new :, None]
    # A padding query has nothing to see; it sees itself so that no row is empty.
    itself = slots[None, :] == slots[entries.slots - new :, None]
    seen = visible[:, :, None, :] & causal
    if window is not None:
        near = entries.in_window(window, new)
        seen = seen & near.repeat_interleave(visible.shape[1] // near.shape[1], 1)
    return as_mask(seen | itself, additive)


def widened(entries: LayerEntries, heads: int, additive: torch.dtype | None) -> Tensor:
    """What one new token sees, (B, 1 or H, 1, K): every entry that is held.

    It is made with columns to spare: as long as nothing leaves, a step only takes one more.
    """
    mask = entries.mask
    if mask is None or mask.shape[-1] < entries.slots:
        mask = entries.mask = _spacious(entries, heads, additive, SPARE_COLUMNS, seen=True)
    return mask[..., : entries.slots]


def static_mask(
    entries: LayerEntries, heads: int, additive: torch.dtype | None, size: int
) -> Tensor:
    """What one new token sees of a buffer of ``size`` slots, (B, 1 or H, 1, size).

    Every entry that is held, and nothing of the slots that are free yet.
    """
    return _spacious(entries, heads, additive, size - entries.slots, seen=False)


def _spacious(
    entries: LayerEntries, heads: int, additive: torch.dtype | None, columns: int, *, seen: bool
) -> Tensor:
    """(B, 1 or H, 1, K + columns): entries that are held, and columns beyond them."""
    room = torch.nn.functional.pad(entries.valid, (0, columns), value=seen)
    return as_mask(_per_head(room, heads)[:, :, None], additive)


def _per_head(values: Tensor, heads: int) -> Tensor:
    """(B, 1 or H, K) of values (B, G, K) of groups of heads."""
    groups = values.shape[1]
    return values if groups == 1 else values.repeat_interleave(heads // groups, 1)


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
