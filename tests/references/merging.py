"""Methods that merge vision tokens between decoder layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.merging.oracle import Token, merge_stage
from tests.references.calls import Calls
from tests.references.pictures import Left, Picture, cosine, merged, merges, proposals, without

RATIO = 0.4


def tome(picture: Picture, calls: Calls) -> Left:
    """Every other token proposes to one of the rest; plain means."""
    return merged(picture, _alternate(picture, calls), np.ones(len(picture.kinds)))


def _alternate(picture: Picture, calls: Calls) -> dict[int, int]:
    vision = picture.places("v")
    count = merges(RATIO, len(vision))
    return proposals(picture.hidden, vision[0::2], vision[1::2], count, calls)


def pitome(picture: Picture, calls: Calls) -> Left:
    """The tokens of highest energy alternate; all sources merge, by the tokens they stand for."""
    vision = picture.places("v")
    margin = 0.9 - 0.9 * picture.layer / picture.layers
    energy = {}
    for i in vision:
        parts = []
        for j in vision:
            alike = cosine(picture.hidden[i], picture.hidden[j])
            above = i == j or calls.at_least(alike, margin)
            parts.append(alike if above else math.exp(alike - margin) - 1)
        energy[i] = sum(parts) / len(parts)
    count = merges(RATIO, len(vision))
    order = calls.ordered(energy)[: 2 * count]
    pairs = proposals(picture.hidden, order[0::2], order[1::2], count, calls)
    return merged(picture, pairs, picture.sizes)


def tofu(picture: Picture, calls: Calls) -> Left:
    """Up to the middle of the layers sources are dropped, then groups keep their largest norm."""
    pairs = _alternate(picture, calls)
    if picture.layer <= picture.layers // 2:
        return without(picture, set(pairs))
    kept, states = merged(picture, pairs, np.ones(len(picture.kinds)))
    for slot, place in enumerate(kept):
        members = [place, *(a for a, b in pairs.items() if b == place)]
        if len(members) > 1:
            largest = max(math.sqrt(float(picture.hidden[n] @ picture.hidden[n])) for n in members)
            states[slot] *= largest / math.sqrt(float(states[slot] @ states[slot]))
    return kept, states


def lightkv(picture: Picture, calls: Calls) -> Left:
    """Windows on each grid, weights by attention to the prompt; see :mod:`tests.merging.oracle`."""
    tokens = [
        Token(
            kind == "v",
            None if cell is None else (cell.grid, cell.rows, cell.cols, cell.row, cell.col),
        )
        for kind, cell in zip(picture.kinds, picture.cells, strict=True)
    ]
    states, _, matrix = merge_stage(picture.hidden, picture.logits, tokens, 2, RATIO)
    kept = []
    for weights in matrix:
        members = [place for place in range(len(tokens)) if weights[place]]
        # The survivor of a group is its B node, the only one at an odd place of its window.
        kept.append(members[0] if len(members) == 1 else _target(picture, members))
    return kept, states


def _target(picture: Picture, members: list[int]) -> int:
    """The member at an odd place of its window, of two windows a side."""
    windows: dict[tuple[int, int, int], list[int]] = {}
    for place, cell in enumerate(picture.cells):
        if cell is not None:
            across = 0 if cell.col < -(-cell.cols // 2) else 1
            down = 0 if cell.row < -(-cell.rows // 2) else 1
            windows.setdefault((cell.grid, down, across), []).append(place)
    odd = {place for members_of_window in windows.values() for place in members_of_window[1::2]}
    return next(place for place in members if place in odd)


MERGING: dict[str, Callable[[Picture, Calls], Left]] = {
    "tome": tome,
    "pitome": pitome,
    "tofu": tofu,
    "lightkv": lightkv,
}
