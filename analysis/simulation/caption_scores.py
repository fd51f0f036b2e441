"""Scores of real captions, from rows that ship: what simulations draw questions from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from analysis.scoring.metrics import cider, coco_rouge_l, each

TASK: Final = "embedded/caption"
PROTOCOL: Final = "question-first"
METRICS: Final = {"ROUGE-L": each(coco_rouge_l), "CIDEr": cider}
"""By the name in tables."""

Scores = np.ndarray[Any, np.dtype[np.float64]]


@cache
def caption_scores(metric: str) -> Mapping[str, Scores]:
    """Scores (captions,) of every method that ships, the same captions in the same order."""
    from analysis.asking.question_rows import shipped_rows
    from analysis.tasks import task

    rows = shipped_rows()
    assert rows is not None  # noqa: S101
    rows = rows[(rows["task"] == TASK) & (rows["protocol"] == PROTOCOL)].sort_values("item")
    (seed,) = rows["seed"].unique()
    items = task(TASK).items(int(rows["item"].max()) + 1, int(seed))
    references = [items[item].answers for item in sorted(rows["item"].unique())]
    return {
        str(method): np.asarray(METRICS[metric](answers.tolist(), references), float)
        for method, answers in rows.groupby("method")["answer"]
    }
