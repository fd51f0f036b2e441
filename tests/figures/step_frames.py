"""Frames of one window, of a plan's stages and of ranked entries, as a run would leave them."""

from __future__ import annotations

import itertools

import pandas as pd

FIRST = {"model": "embedded", "task": "embedded/read", "seed": 0, "item": 0}
WORDS = ("what", "is", "it", "?")


def window_steps(*, far: bool = False, count: int = 2, alike: bool = False) -> pd.DataFrame:
    """A window of 2 x 4 tokens whose ``count`` nearest proposals merge, at a ratio of 0.25.

    ``far`` merges the farthest proposals instead, ``alike`` weighs tokens of a group alike.
    """
    places = list(itertools.product((4, 5), (8, 9, 10, 11)))
    ours, theirs = places[::2], places[1::2]
    common = {**FIRST, "layer": 2, "grid_rows": 16, "grid_cols": 16, "ratio": 0.25}
    order = ours[::-1] if far else ours
    into = dict(zip(order[:count], theirs[:count] if not far else theirs[::-1], strict=False))
    xi = {place: 0.1 * (1 + number) for number, place in enumerate(places)}
    rows = []
    for place in places:
        end = into.get(place, place)
        group = sum(xi[other] for other in places if into.get(other, other) == end)
        size = sum(into.get(other, other) == end for other in places)
        rows.append(
            {
                **common,
                "panel": "token",
                "row": place[0],
                "col": place[1],
                "set": "A" if place in ours else "B",
                "importance": xi[place],
                "weight": 1 / size if alike else xi[place] / group,
                "target_row": end[0],
                "target_col": end[1],
            }
        )
    for (a, one), (b, other) in itertools.product(enumerate(ours), enumerate(theirs)):
        rows.append(
            {
                **common,
                "panel": "edge",
                "row": one[0],
                "col": one[1],
                "other_row": other[0],
                "other_col": other[1],
                "divergence": 0.1 * (a + 1) + abs(a - b),
                "nearest": a == b,
                "merged": into.get(one) == other,
            }
        )
    return pd.DataFrame(rows)


def stage_plan(*, late: int = 0, read: tuple[int, ...] = (2, 4), cached: int = 0) -> pd.DataFrame:
    """Six layers with stages after 2 and 4, whose tokens are gone ``late`` layers afterwards."""
    rows = []
    for layer in range(6):
        vision = 64 >> sum(layer > stage + late for stage in (2, 4))
        rows.append(
            {
                **FIRST,
                "layer": layer,
                "stage": layer in (2, 4),
                "windows": {2: 4.0, 4: 1.0}.get(layer, float("nan")),
                "attention": layer in read,
                "tokens": 10 + vision,
                "vision": vision,
                "entries": 10 + vision - cached,
            }
        )
    return pd.DataFrame(rows)


def ranked_entries(*, steep: float = 0.0, worst: bool = False, words: bool = True) -> pd.DataFrame:
    """Four layers of 4 system entries, 256 patches and 4 words, of which 12 to 18 stay.

    Budgets depart from the attention by ``steep``; ``worst`` keeps the worst patches; without
    ``words`` one of them is gone.
    """
    rows = []
    for layer in range(4):
        share = (layer + 1) / 10
        requested = 150 * share * (1 + steep * (layer - 1.5))
        common = {**FIRST, "layer": layer, "requested": requested, "text_vision": share}
        kept = 4 + 2 * layer
        for place in range(4):
            other = {"position": place, "kind": "system", "row": -1, "col": -1, "token": "a"}
            rows.append({**common, **other, "kept": True})
        for place in range(256):
            best = place >= 256 - kept if worst else place < kept
            patch = {"position": 4 + place, "kind": "vision", "row": place // 16, "token": ""}
            score = 1 / (1 + place)
            rows.append({**common, **patch, "col": place % 16, "score": score, "kept": best})
        for place, word in enumerate(WORDS):
            text = {"position": 260 + place, "kind": "text", "row": -1, "col": -1, "token": word}
            rows.append({**common, **text, "weight": 0.25, "kept": words or place > 0})
    return pd.DataFrame(rows)


FRAMES = {
    "window_steps": window_steps,
    "stage_plan": stage_plan,
    "ranked_entries": ranked_entries,
}
