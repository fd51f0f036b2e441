"""Methods that choose before the decoder, most of them by what the vision tower says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.references.calls import Calls
from tests.references.pictures import Left, Picture, cosine, only, without

TOKENS = 5


def divprune(picture: Picture, calls: Calls) -> Left:
    """The farthest from its nearest, then again and again the farthest from all that stay."""
    vision = picture.places("v")
    apart = {
        i: {j: 1 - cosine(picture.hidden[i], picture.hidden[j]) for j in vision} for i in vision
    }
    count = calls.rounded(0.4 * len(vision))
    kept = [calls.largest({i: min(apart[i][j] for j in vision if j != i) for i in vision})]
    while len(kept) < count:
        reach = {j: min(apart[i][j] for i in kept) for j in vision if j not in kept}
        kept.append(calls.largest(reach))
    return only(picture, kept)


def cdpruner(picture: Picture, calls: Calls) -> Left:
    """The largest determinants of a kernel that falls with the cosine to the question."""
    relevance = {}
    for image in picture.images():
        values = {j: -float(picture.tower["text_relevance"][j]) for j in image}
        low, high = min(values.values()), max(values.values())
        relevance |= {j: (value - low + 1e-6) / (high - low) for j, value in values.items()}
    kept = []
    for tile in picture.tiles():
        weights = np.array([relevance[j] for j in tile])
        alike = [[cosine(picture.hidden[i], picture.hidden[j]) for j in tile] for i in tile]
        kernel = weights[:, None] * np.array(alike) * weights
        selected: list[int] = []
        for _ in range(min(TOKENS, len(tile))):
            gains = {}
            for j in range(len(tile)):
                if j not in selected:
                    rows = [*selected, j]
                    before = np.linalg.det(kernel[np.ix_(selected, selected)]) if selected else 1.0
                    gains[j] = np.linalg.det(kernel[np.ix_(rows, rows)]) / before
            selected.append(calls.largest(gains))
        kept += [tile[j] for j in selected]
    return only(picture, kept)


def hired(picture: Picture, calls: Calls) -> Left:
    """A quarter of the budget less or more a tile, by the marks that it covers."""
    kept: list[int] = []
    for image in picture.images():
        grids = sorted({picture.cells[j].grid for j in image})
        whole = [j for j in image if picture.cells[j].grid == grids[0]]
        finer = [j for j in image if picture.cells[j].grid != grids[0]]
        budget = math.floor(0.5 * len(image))
        score = {j: float(picture.tower["cls_attention"][j]) for j in image}
        if not finer:
            kept += calls.best(score, budget)
            continue
        full = min(math.floor(0.5 * budget), len(whole))
        kept += calls.best({j: score[j] for j in whole}, full)
        base, fine = picture.cells[whole[0]], picture.cells[finer[0]]
        across = -(-fine.rows // base.rows), -(-fine.cols // base.cols)

        def tile(j: int, across: tuple[int, int] = across) -> tuple[int, int]:
            cell = picture.cells[j]
            return cell.row * across[0] // cell.rows, cell.col * across[1] // cell.cols

        first = {j: float(picture.tower["first_attention"][j]) for j in whole}
        marked = calls.best(first, math.floor(0.5 * len(whole)))
        left = min(budget - full, len(finer))
        for one in sorted({tile(j) for j in finer}):
            scores_of_tile = {j: score[j] for j in finer if tile(j) == one}
            covered = sum(tile(j) == one for j in marked)
            quota = left * covered // max(1, len(marked))
            kept += calls.best(scores_of_tile, min(quota, len(scores_of_tile)))
    return only(picture, kept)


def visionzip(picture: Picture, calls: Calls) -> Left:
    """Dominant patches, and the rest averaged into evenly spaced ones before the projector."""
    goes_to: dict[int, int] = {}
    for tile in picture.tiles():
        score = {j: float(picture.tower["cls_attention"][j]) for j in tile}
        dominant = calls.best(score, 3)
        rest = [j for j in tile if j not in dominant]
        stride = max(1, len(rest) // 2)
        targets = rest[::stride][:2]
        keys = picture.tower["keys"]
        for j in rest:
            if j not in targets:
                goes_to[j] = calls.largest({t: cosine(keys[j], keys[t]) for t in targets})
    kept, states = without(picture, set(goes_to))
    features, project = picture.tower["features"], picture.tower["project"]
    for slot, place in enumerate(kept):
        members = [place, *(a for a, b in goes_to.items() if b == place)]
        if len(members) > 1:
            states[slot] = sum(features[n] for n in members) / len(members) @ project
    return kept, states


def vispruner(picture: Picture, calls: Calls) -> Left:
    """Important patches, and of the rest those that are left when duplicates leave in rounds."""
    kept: list[int] = []
    for tile in picture.tiles():
        score = {j: float(picture.tower["cls_attention"][j]) for j in tile}
        important = calls.best(score, TOKENS // 2)
        wanted = TOKENS - len(important)
        states = picture.tower["features"]
        others = calls.ordered({j: score[j] for j in tile if j not in important})
        while len(others) > wanted:
            even, odd = others[0::2], others[1::2]
            likeness = {
                number: max((cosine(states[a], states[b]) for b in odd), default=-math.inf)
                for number, a in enumerate(even)
            }
            order = calls.ordered(likeness)
            leaving = min(2, len(others) - wanted, len(even))
            others = [*(even[number] for number in order[leaving:]), *odd]
        kept += [*important, *others]
    return only(picture, kept)


def hiprune(picture: Picture, calls: Calls) -> Left:
    """One anchor by the middle layer, its neighbours on the grid, the rest by the reading layer."""
    kept: set[int] = set()
    received = picture.tower["received"]
    for tile in picture.tiles():
        middle = {j: float(received[j, 1]) for j in tile}
        anchor = picture.cells[calls.largest(middle)]
        near = {}
        for j in tile:
            cell = picture.cells[j]
            away = abs(cell.row - anchor.row) + abs(cell.col - anchor.col)
            if away <= 1:
                near[j] = math.inf if away == 0 else middle[j]
        finite = {j: value for j, value in near.items() if value < math.inf}
        members = {j for j in near if j not in finite}
        members |= set(calls.best(finite, min(len(finite), TOKENS - 1)))
        left = {j: float(received[j, -1]) for j in tile if j not in members}
        kept |= members | set(calls.best(left, TOKENS - len(members)))
    return only(picture, sorted(kept))


def quartile(values: list[float], share: float) -> float:
    """Linear percentile."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def prumerge(picture: Picture, calls: Calls, plus: bool = False) -> Left:
    """Outliers take in their likes; one token more is the sum of what does not stay."""
    features, keys = picture.tower["features"], picture.tower["last_keys"]
    attention = picture.tower["last_attention"]
    replaced: dict[int, np.ndarray] = {}
    gone: set[int] = set()
    for tile in picture.tiles():
        values = [float(attention[j]) for j in tile]
        low, high = quartile(values, 0.25), quartile(values, 0.75)
        bound = high + 1.5 * (high - low)
        stays = [j for j in tile if calls.at_least(float(attention[j]), bound)]
        if plus:
            step = max(1, len(tile) // max(1, len(stays)) // 3)
            stays = sorted({*stays, *tile[: len(tile) - 1 : step]})
        for i in stays:
            alike = {j: cosine(keys[i], keys[j]) for j in tile if j != i}
            taken = calls.best(alike, 3)
            replaced[i] = features[i] + sum(float(attention[j]) * features[j] for j in taken)
        others = [j for j in tile if j not in stays]
        if others:
            replaced[others[-1]] = sum(float(attention[j]) * features[j] for j in others)
            gone |= set(others[:-1])
    kept, states = without(picture, gone)
    for slot, place in enumerate(kept):
        if place in replaced:
            states[slot] = replaced[place] @ picture.tower["project"]
    return kept, states


def prumerge_plus(picture: Picture, calls: Calls) -> Left:
    return prumerge(picture, calls, plus=True)


TOWER: dict[str, Callable[[Picture, Calls], Left]] = {
    "divprune": divprune,
    "cdpruner": cdpruner,
    "hired": hired,
    "visionzip": visionzip,
    "vispruner": vispruner,
    "hiprune": hiprune,
    "prumerge": prumerge,
    "prumerge-plus": prumerge_plus,
}
