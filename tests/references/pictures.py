"""What pruning and merging methods see of one prompt, and steps that several of them share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.references.calls import Calls

Array = np.ndarray
Left = tuple[list[int], Array]  # places that stay, and their states (K, D)


@dataclass
class Cell:
    """Where a vision token lies: image, grid of the prompt, extent, row and column."""

    image: int
    grid: int
    rows: int
    cols: int
    row: int
    col: int


@dataclass
class Picture:
    """One prompt without padding.

    Attributes:
        kinds: A letter a token: s, v, t.
        cells: Of vision tokens, None for all others.
        hidden: (N, D).
        attention: (H, N, N) after the causal softmax.
        logits: (H, N, N) before mask and softmax.
        keys: (H, N, d).
        sizes: (N,) tokens that each stands for.
        inputs: (N, D) at the input of the decoder.
        rotary: (N, d) cosine and sine.
        tower: What the vision tower says, (N,) or (N, C), by name.
        layer, layers: Which of how many.
    """

    kinds: str
    cells: list[Cell | None]
    hidden: Array
    attention: Array
    logits: Array
    keys: Array
    sizes: Array
    inputs: Array
    rotary: tuple[Array, Array]
    tower: dict[str, Array]
    layer: int = 0
    layers: int = 10

    def places(self, letters: str) -> list[int]:
        return [n for n, kind in enumerate(self.kinds) if kind in letters]

    def tiles(self) -> list[list[int]]:
        """Vision tokens of each grid."""
        places_of: dict[int, list[int]] = {}
        for place, cell in enumerate(self.cells):
            if cell is not None:
                places_of.setdefault(cell.grid, []).append(place)
        return list(places_of.values())

    def images(self) -> list[list[int]]:
        """Vision tokens of each image."""
        places_of: dict[int, list[int]] = {}
        for place, cell in enumerate(self.cells):
            if cell is not None:
                places_of.setdefault(cell.image, []).append(place)
        return list(places_of.values())

    @property
    def mean_attention(self) -> Array:
        return self.attention.mean(0)


def cosine(one: Array, other: Array) -> float:
    return float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))


def without(picture: Picture, dropped: set[int]) -> Left:
    """All tokens but some, as they were."""
    kept = [n for n in range(len(picture.kinds)) if n not in dropped]
    return kept, picture.hidden[kept]


def only(picture: Picture, vision: Sequence[int]) -> Left:
    """All text and some vision tokens."""
    return without(picture, set(picture.places("v")) - set(vision))


def merged(picture: Picture, goes_to: dict[int, int], weights: Array) -> Left:
    """Sources join their targets in a weighted mean."""
    kept, states = without(picture, set(goes_to))
    for slot, place in enumerate(kept):
        members = [place, *(a for a, b in goes_to.items() if b == place)]
        if len(members) > 1:
            total = sum(float(weights[n]) for n in members)
            states[slot] = sum(float(weights[n]) / total * picture.hidden[n] for n in members)
    return kept, states


def proposals(
    states: Array, sources: Sequence[int], targets: Sequence[int], count: int, calls: Calls
) -> dict[int, int]:
    """Each source proposes its most similar target; the most similar proposals merge."""
    nearest, likeness = {}, {}
    for a in sources:
        cosines = {b: cosine(states[a], states[b]) for b in targets}
        nearest[a] = calls.largest(cosines)
        likeness[a] = cosines[nearest[a]]
    # In the order of the sources, so that the first of equal ones wins.
    numbered = {number: likeness[a] for number, a in enumerate(sources)}
    merged = calls.best(numbered, count)
    return {sources[number]: nearest[sources[number]] for number in merged}


def merges(ratio: float, count: int) -> int:
    """A share of the tokens in hundredths, rounded down, at most half of them."""
    return min(round(100 * ratio) * count // 100, count // 2)
