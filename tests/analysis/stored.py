"""Rows to store in tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from analysis.asking.rows import Configuration, Row

BATCH = 5
CONFIGURATION = Configuration(
    model="toy",
    fingerprint="f00d",
    method="TGVKV",
    parameters="TGVKV(retention=0.05)",
    task="embedded/read",
    task_fingerprint="generated",
    protocol="question-first",
    metric="exact",
    seed=0,
    max_new_tokens=6,
    dtype="float32",
    attention="sdpa",
    device="cpu",
    revision="abc",
    versions="{}",
)


def row(item: int, **changes: Any) -> Row:
    given = Row(
        item=item,
        identity=f"0/{item}",
        question="what is the red number ?",
        answer="1 2 3 4",
        references=("1 2 3 4",),
        score=1.0,
        kv_bytes=100,
        full_kv_bytes=400,
        requested_retention=0.25,
        achieved_retention=0.25,
        token_layers=60,
        full_token_layers=80,
        generated_tokens=5,
        seconds=0.5,
    )
    return dataclasses.replace(given, **changes)


def rows(*items: int) -> list[Row]:
    return [row(item) for item in items]
