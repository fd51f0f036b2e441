"""Replay of the reference cases of 2026 that belong to methods of the prefill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkv.golden.verify import replay_of

GOLDEN = Path(__file__).parents[1] / "golden2026"
METHODS = ("dart", "hiprune", "prumerge", "pyramiddrop")
CASES = [
    case
    for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
    if case["method"] in METHODS
]


def arrays_of(case: dict[str, Any]) -> dict[str, Any]:
    with np.load(GOLDEN / case["file"]) as stored:
        return dict(stored)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_case(case: dict[str, Any]) -> None:
    assert replay_of(case["method"]).replay(case, arrays_of(case)) == []


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("hiprune", "mask"),
        ("dart", "kept"),
        ("dart", "per_pivot"),
        ("pyramiddrop", "kept"),
        ("pyramiddrop", "keep_vision"),
        ("pyramiddrop", "position_ids"),
        ("prumerge", "outlier_ratio"),
        ("prumerge", "cls_query"),
        ("prumerge", "prumerge"),
        ("prumerge", "prumerge_plus"),
        ("prumerge", "prumerge_eighth"),
        ("prumerge", "prumerge_plus_eighth"),
    ],
)
def test_what_is_recorded_is_compared(method: str, key: str) -> None:
    case = next(case for case in CASES if case["method"] == method)
    arrays = arrays_of(case)
    recorded = arrays[key]
    arrays[key] = np.roll(recorded, 1, -1) if recorded.ndim else recorded + recorded.dtype.type(1)
    assert replay_of(method).replay(case, arrays)
