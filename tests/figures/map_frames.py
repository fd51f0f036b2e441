"""Constructed frames of what is merged and kept, token by token."""

from __future__ import annotations

import itertools

import pandas as pd

from tests.figures.score_frames import TASKS


def merge_maps(
    grid: int = 16, windows: tuple[int, ...] = (4, 2, 1), pictures: int = 12
) -> pd.DataFrame:
    """Pairs of columns, then of rows, then of columns again become one token."""
    rows = []
    strides = ((1, 2), (2, 2), (2, 4), (4, 4))
    for item in range(pictures):
        for stage, count in enumerate(windows):
            down, across = strides[stage]
            for row, col in itertools.product(range(grid), repeat=2):
                rows.append(
                    {
                        "model": "embedded",
                        "task": TASKS[0],
                        "seed": 0,
                        "item": item,
                        "stage": stage + 1,
                        "layer": 2 * stage + 1,
                        "windows": count,
                        "row": row,
                        "col": col,
                        "target_row": row // down * down,
                        "target_col": col // across * across,
                    }
                )
    return pd.DataFrame(rows)


def kept_maps(
    shallow: int = 12, deep: int = 6, pictures: int = 12, whole_text: bool = True
) -> pd.DataFrame:
    """Two retentions of layers that keep the text and ``shallow`` or ``deep`` patches."""
    tight = _kept(shallow // 2, deep // 2, pictures, whole_text).assign(retention=0.03)
    return pd.concat([tight, _kept(shallow, deep, pictures, whole_text).assign(retention=0.1)])


def _kept(shallow: int, deep: int, pictures: int, whole_text: bool) -> pd.DataFrame:
    words = ["<s>", "a", "chat", ":", "what", "is", "the", "red", "number", "?"]
    rows = []
    for item, layer in itertools.product(range(pictures), range(8)):
        budget = shallow + item % 3 if layer < 4 else deep
        common = {"model": "embedded", "task": TASKS[0], "seed": 0, "item": item, "layer": layer}
        for place in range(256):
            cell = {"position": 4 + place, "kind": "vision", "row": place // 16, "col": place % 16}
            rows.append({**common, **cell, "token": "", "kept": place * 7 % 256 < budget})
        for place, word in enumerate(words):
            kind, position = ("system", place) if place < 4 else ("text", 256 + place)
            kept = whole_text or place != 6
            rows.append(
                {
                    **common,
                    "position": position,
                    "kind": kind,
                    "row": -1,
                    "col": -1,
                    "token": word,
                    "kept": kept,
                }
            )
    return pd.DataFrame(rows)
