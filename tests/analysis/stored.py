"""Rows to store in tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from analysis.asking.rows import Configuration, Outcome, Row, Scorer

BATCH = 5
CONFIGURATION = Configuration(
    model="toy",
    fingerprint="f00d",
    method="TGVKV",
    parameters="TGVKV(retention=0.05)",
    task="embedded/read",
    task_fingerprint="generated",
    protocol="question-first",
    seed=0,
    max_new_tokens=6,
    dtype="float32",
    attention="sdpa",
    device="cpu",
    revision="abc",
    versions="{}",
)


SCORER = Scorer(metric="exact", truth="", code="abc", libraries="{}")


def outcome(item: int, score: float | None = 1.0) -> Outcome:
    return Outcome(item, ("1 2 3 4",), score)


def outcomes(*items: int) -> list[Outcome]:
    return [outcome(item) for item in items]


def row(item: int, **changes: Any) -> Row:
    usual = Row(
        item=item,
        identity=f"0/{item}",
        picture=f"0/{item}",
        question="what is the red number ?",
        answer="1 2 3 4",
        kv_bytes=100,
        full_kv_bytes=400,
        requested_retention=0.25,
        achieved_retention=0.25,
        token_layers=60,
        full_token_layers=80,
        generated_tokens=5,
        seconds=0.5,
    )
    return dataclasses.replace(usual, **changes)


def rows(*items: int) -> list[Row]:
    return [row(item) for item in items]
