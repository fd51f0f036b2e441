"""Several layers at once: their views as one, and what was observed of it layer by layer again.

A small operator costs a GPU's host as much for one layer as for all of them, so whatever does not
depend on the order of the layers is done for as many together as fit into a block of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from lightkv.contract.attention_sources import PickedAttention
from lightkv.contract.compressor import Observation
from lightkv.contract.host import all_on_host
from lightkv.contract.reduction import compact_each
from lightkv.contract.shapes import check_shape
from lightkv.contract.view import EntriesView
from lightkv.eviction.parts.protection import ends
from lightkv.eviction.parts.selections import Selection

Seen = TypeVar("Seen", EntriesView, Observation)


def runs(seen: Sequence[Seen]) -> Iterator[Sequence[Seen]]:
    """Cut layers where the layout of the sequence changes."""
    start = 0
    for stop in range(1, len(seen) + 1):
        if stop == len(seen) or seen[stop].layout is not seen[start].layout:
            yield seen[start:stop]
            start = stop


def blocks(views: Sequence[EntriesView]) -> Iterator[Sequence[EntriesView]]:
    """Cut layers of one layout into as many as fit into a block of memory together."""
    start = 0
    while start < len(views):
        first = views[start].attention
        most = first.layers_at_once if isinstance(first, PickedAttention) else len(views)
        stop = start + 1
        while stop < min(start + most, len(views)) and _alike(views[start], views[stop]):
            stop += 1
        yield views[start:stop]
        start = stop


def _alike(one: EntriesView, other: EntriesView) -> bool:
    """True if the attention kernel takes a mask in both layers, or in none."""
    ours, theirs = one.attention, other.attention
    if not (isinstance(ours, PickedAttention) and isinstance(theirs, PickedAttention)):
        return ours is theirs
    return (ours.mask is None) == (theirs.mask is None) and ours.keys.shape == theirs.keys.shape


def stacked(views: Sequence[EntriesView], *, entries: bool) -> EntriesView:
    """Layers of one layout as one view, (L * B, ...): the rows of the first layer come first.

    Args:
        views: L layers of B rows.
        entries: Whether keys and values are wanted.
    """
    if len(views) == 1:
        return views[0]
    parts = [one.attention for one in views if isinstance(one.attention, PickedAttention)]
    keys = [one.keys for one in views if one.keys is not None and entries]
    values = [one.values for one in views if one.values is not None and entries]
    return replace(
        views[0],
        layout=views[0].layout.tiled(len(views)),
        sizes=views[0].sizes.repeat(len(views), 1),
        attention=PickedAttention.stacked(parts) if parts else None,
        keys=torch.cat(keys) if keys else None,
        values=torch.cat(values) if values else None,
        together=len(views),
    )


def split(
    observed: Observation, whole: EntriesView, views: Sequence[EntriesView]
) -> list[Observation]:
    """What was observed of ``whole``, the views stacked, layer by layer."""
    if len(views) == 1:
        return [observed]
    layers, rows = len(views), views[0].layout.batch_size
    scores = layer_by_layer(observed.score, layers)
    strengths = layer_by_layer(observed.strength, layers)
    claims: Sequence[Tensor | None] = (None,) * layers
    if observed.claims is not None:
        claims = layer_by_layer(observed.claims, layers)
    # As the evictor reads it, which need not be as the view has it.
    unchanged = observed.layout is whole.layout
    layout = views[0].layout if unchanged else observed.layout.rows(range(rows))
    return [
        Observation(layout, score, strength, claims=claim)
        for score, strength, claim in zip(scores, strengths, claims, strict=True)
    ]


@dataclass(frozen=True)
class Layers:
    """Consecutive layers of one layout.

    Attributes:
        observations: What was observed of each.
        counted: (B, N) bool, entries that the budget is a share of.
        guarded: (B, N) bool, entries that stay whatever the budget.
    """

    observations: Sequence[Observation]
    counted: Tensor
    guarded: Tensor


@dataclass(frozen=True)
class Counts:
    """Entries of each layer, (B, L) int64 on the host.

    Attributes:
        counted: Those that the budget pays for.
        paid: Those of them that stay whatever the budget.
        shared: Those that the budget is a share of.
        uncounted: Those that the budget does not pay for.
        real: All of them.
    """

    counted: Tensor
    paid: Tensor
    shared: Tensor
    uncounted: Tensor
    real: Tensor


def counts_of(groups: Sequence[Layers], selection: Selection) -> Counts:
    """Entries of each layer of all groups."""
    numbers = []
    for group in groups:
        layout = group.observations[0].layout
        counted, real = group.counted, layout.real
        shared = selection.shared(layout)
        masks = counted, group.guarded & counted, shared, real & ~counted, real
        numbers.append(torch.stack(masks).sum(-1))
    times = torch.tensor([len(group.observations) for group in groups])
    each = torch.stack(all_on_host(numbers), -1).repeat_interleave(times, -1)  # (5, B, layers)
    return Counts(*each.unbind(0))


@dataclass(frozen=True)
class Kept:
    """What stays of n layers of one layout.

    Attributes:
        keep: (n, B, G, N) bool.
        guarded: (n, B, N) bool, entries that stay whatever the budget.
        places: Of each layer the places (B, G, K) int64 of what stays, and (B, G, K) bool.
        counts: (n, B, G) int64 on the host, how many.
        tail: (n, B) int64 on the host, entries of the question that stay in all heads, at least 1.
        always: (n, B) int64 on the host, entries that stay even where the budget is smaller.
        finite: Of each layer whether the scores were numbers.
    """

    keep: Tensor
    guarded: Tensor
    places: list[tuple[Tensor, Tensor]]
    counts: Tensor
    tail: Tensor
    always: Tensor
    finite: list[bool]


def keep(layers: Layers, budget: Tensor, recent: Tensor | None, selection: Selection) -> Kept:
    """Which entries of n layers stay.

    Args:
        layers: The n layers, of B rows.
        budget: (B, n) int64 on the host, counted entries to keep.
        recent: (B, n) int64 on the host, last entries that stay for sure; None for none.
        selection: The rule.
    """
    count = len(layers.observations)
    score = torch.cat([one.score for one in layers.observations])  # (n B, ...)
    tiled = layers.observations[0].layout.tiled(count)
    entries = budget.T.flatten().to(score.device)  # row by row of the tiled layout
    guarded = layers.guarded.repeat(count, 1)
    if recent is not None:
        guarded = guarded | ends(tiled, 0, recent.T.flatten().to(score.device)[:, None])
    claims = [one.claims for one in layers.observations if one.claims is not None]
    if claims:
        kept = selection.keep_claimed(score, torch.cat(claims), tiled, entries, guarded)
    else:
        kept = selection.keep(score, tiled, entries, guarded)
    check_shape(selection, "keep", kept, tuple(score.shape))
    grouped = kept if kept.dim() == 3 else kept[:, None]  # (n * B, G, N)
    uncounted = ~layers.counted.repeat(count, 1)
    always = ((guarded | uncounted) & tiled.real).sum(1)
    numbers = [
        (grouped.all(1) & tiled.question).sum(1).clamp_min(1),
        torch.maximum(always, selection.least(tiled, entries, guarded)),
        score.isfinite().flatten(1).all(1).long(),
    ]
    # One transfer: the host waits once for all layers.
    table = torch.cat([grouped.sum(-1), torch.stack(numbers, 1)], 1).cpu()
    table = _apart(table, count)  # (n, B, G + 3)
    masks, counts = _apart(grouped, count), table[..., :-3]
    tail, least, finite = table[..., -3:].unbind(-1)
    numeric = finite.bool().all(1).tolist()
    places = compact_each(masks, counts)
    return Kept(masks, _apart(guarded, count), places, counts, tail, least, numeric)


def layer_by_layer(values: Tensor, layers: int) -> tuple[Tensor, ...]:
    """L tensors (B, ...) of the rows (L * B, ...) of stacked layers."""
    return _apart(values, layers).unbind(0)


def _apart(values: Tensor, layers: int) -> Tensor:
    """(L, B, ...) of the rows (L * B, ...) of stacked layers."""
    return values.reshape(layers, -1, *values.shape[1:])
