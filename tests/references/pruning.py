"""Methods that drop vision tokens in the decoder, and those that look at no content."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.references.calls import Calls
from tests.references.pictures import Left, Picture, cosine, merged, only

SHARE = 0.4
KEPT = 6
RATERS_HEADS = 2


def fastv(picture: Picture, calls: Calls) -> Left:
    vision = picture.places("v")
    row = picture.mean_attention[-1]
    count = calls.rounded(0.5 * len(vision))
    return only(picture, calls.best({j: float(row[j]) for j in vision}, count))


def pyramiddrop(picture: Picture, calls: Calls) -> Left:
    vision = picture.places("v")
    row = picture.mean_attention[-1]
    count = round(100 * SHARE) * len(vision) // 100
    return only(picture, calls.best({j: float(row[j]) for j in vision}, count))


def dart(picture: Picture, calls: Calls) -> Left:
    """Two vision pivots and one of the later text take equally many tokens unlike them."""
    vision = picture.places("v")
    later = [j for j in picture.places("t") if j > vision[-1]]
    norm = {
        j: sum(abs(float(x)) for head in picture.keys for x in head[j])
        for j in range(len(picture.kinds))
    }
    seen = calls.best({j: norm[j] for j in vision}, 2)
    calls.ordered({j: norm[j] for j in seen})
    said = calls.best({j: norm[j] for j in later}, 1)
    states = picture.hidden * picture.tower["norm"][0]
    quota = len(vision) * 50 // 100 // 3
    kept = set(seen)
    for pivot in [*seen, *said]:
        free = {j: -cosine(states[pivot], states[j]) for j in vision if j not in kept}
        kept |= set(calls.best(free, quota))
    return only(picture, sorted(kept))


def raters(picture: Picture, calls: Calls) -> list[int]:
    """Question tokens that the vision embeddings are more similar to than on average."""
    vision, question = picture.places("v"), picture.places("t")
    share = dict.fromkeys(question, 0.0)
    for i in vision:
        logits = [float(picture.inputs[i] @ picture.inputs[j]) for j in question]
        raised = [math.exp(logit - max(logits)) for logit in logits]
        for j, value in zip(question, raised, strict=True):
            share[j] += value / sum(raised) / len(vision)
    mean = sum(share.values()) / len(share)
    above = []
    for j in question:
        calls.note(share[j] - mean, mean)
        if share[j] > mean and not math.isclose(share[j], mean, rel_tol=1e-9):
            above.append(j)
    return above or question


def sparsevlm(picture: Picture, calls: Calls) -> Left:
    """Version 1: the best of the dropped tokens become means of a few clusters."""
    vision, rating = picture.places("v"), raters(picture, calls)
    score = {j: sum(float(picture.mean_attention[i, j]) for i in rating) for j in vision}
    stays = set(calls.best(score, min(KEPT, len(vision) - 1)))
    dropped = {j: score[j] for j in vision if j not in stays}
    recycled = sorted(calls.best(dropped, 3 * len(dropped) // 10 + 1))
    goes_to = clusters(picture.hidden, recycled, len(recycled) // 10 + 1, calls)
    gone = {j for j in dropped if j not in recycled}
    joined = {a: b for a, b in goes_to.items() if a != b}
    kept, states = merged(picture, joined, np.ones(len(picture.kinds)))
    left = [slot for slot, place in enumerate(kept) if place not in gone]
    return [kept[slot] for slot in left], states[left]


def clusters(hidden: np.ndarray, members: list[int], count: int, calls: Calls) -> dict[int, int]:
    """Density peaks: each member's centre."""
    apart = {
        i: {j: math.sqrt(float((hidden[i] - hidden[j]) @ (hidden[i] - hidden[j]))) for j in members}
        for i in members
    }
    width = math.sqrt(hidden.shape[1])
    apart = {
        i: {j: value / width for j, value in distances.items()} for i, distances in apart.items()
    }
    spread = {i: sum(sorted(v**2 for v in apart[i].values())[:count]) / count for i in members}
    calls.ordered(spread)
    peak = {}
    for i in members:
        denser = [j for j in members if (spread[j], j) < (spread[i], i)]
        far = max(max(distances.values()) for distances in apart.values())
        near = min((apart[i][j] for j in denser), default=far)
        peak[i] = math.exp(-spread[i]) * near
    centres = calls.best(peak, count)
    return {
        i: i if i in centres else calls.largest({c: -apart[i][c] for c in sorted(centres)})
        for i in members
    }


def sparsevlm_plus(picture: Picture, calls: Calls) -> Left:
    """Version 2: corrected for places, by the heads that look at the image most."""
    vision, rating = picture.places("v"), raters(picture, calls)
    cos, sin = picture.rotary
    width = picture.keys.shape[2]
    paid = []
    for head in picture.attention:
        rated = dict.fromkeys(vision, 0.0)
        for i in rating:
            for j in vision:
                place = sum(
                    float(cos[i, d] * cos[j, d] + sin[i, d] * sin[j, d]) for d in range(width)
                )
                rated[j] += float(head[i, j]) / (place / math.sqrt(width))
        paid.append(rated)
    mass = {number: sum(rated.values()) for number, rated in enumerate(paid)}
    counting = calls.best(mass, RATERS_HEADS)
    score = {j: sum(paid[number][j] for number in counting) for j in vision}
    return only(picture, calls.best(score, min(KEPT, len(vision) - 1)))


def uniform_grid(picture: Picture, calls: Calls) -> Left:
    """Bands of rows, and cells at the centres of equal parts of each band's row."""
    tiles = picture.tiles()
    tokens = sum(map(len, tiles))
    total = min(max(1, (2 * round(100 * SHARE) * tokens + 100) // 200), tokens)
    counts = [total * len(tile) // tokens for tile in tiles]
    left = [(counts[n] - total * len(tile) / tokens, n) for n, tile in enumerate(tiles)]
    for _, number in sorted(left)[: total - sum(counts)]:
        counts[number] += 1
    kept = []
    for tile, share in zip(tiles, counts, strict=True):
        first = picture.cells[tile[0]]
        assert first is not None
        count = max(1, share)
        bands = min(round(math.sqrt(count * first.rows / first.cols)), first.rows, count)
        bands = min(max(bands, -(-count // first.cols), 1), first.rows)
        for band in range(bands):
            row = (2 * band + 1) * first.rows // (2 * bands)
            held = count * (band + 1) // bands - count * band // bands
            columns = {(2 * part + 1) * first.cols // (2 * held) for part in range(held)}
            kept += [tile[row * first.cols + column] for column in columns]
    return only(picture, kept)


def downsample(picture: Picture, calls: Calls) -> Left:
    """Blocks of nearly equal sides, the longer first, become their means."""
    goes_to = {}
    for tile in picture.tiles():
        first = picture.cells[tile[0]]
        assert first is not None
        side, wanted = math.sqrt(SHARE), SHARE * first.rows * first.cols
        choices = [
            (max(1, math.floor(first.rows * side) + a), max(1, math.floor(first.cols * side) + b))
            for a in (0, 1)
            for b in (0, 1)
        ]
        down, across = min(
            (c for c in choices if c[0] <= first.rows and c[1] <= first.cols),
            key=lambda sides: abs(sides[0] * sides[1] - wanted),
        )
        blocks: dict[tuple[int, int], int] = {}
        for place in tile:
            cell = picture.cells[place]
            assert cell is not None
            block = part(cell.row, first.rows, down), part(cell.col, first.cols, across)
            goes_to[place] = blocks.setdefault(block, place)
    joined = {a: b for a, b in goes_to.items() if a != b}
    return merged(picture, joined, np.ones(len(picture.kinds)))


def part(place: int, length: int, parts: int) -> int:
    ends = 0
    for number in range(parts):
        ends += length // parts + (number < length % parts)
        if place < ends:
            return number
    raise AssertionError


PRUNING: dict[str, Callable[[Picture, Calls], Left]] = {
    "fastv": fastv,
    "pyramiddrop": pyramiddrop,
    "dart": dart,
    "sparsevlm": sparsevlm,
    "sparsevlm-plus": sparsevlm_plus,
    "uniform-grid": uniform_grid,
    "downsample": downsample,
}
