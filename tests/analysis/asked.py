"""Made-up questions, and how they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.asking.evaluation import evaluate
from analysis.tasks import Task, TaskItem
from lightkv import TGVKV, Request
from lightkv.contract.compressor import Compressor


@dataclass(frozen=True)
class Sums(Task):
    """Made-up questions of two lengths."""

    metric_name: str = "exact"

    name = "sums"
    max_new_tokens = 5
    fingerprint = "1"

    @property
    def metric(self) -> str:
        return self.metric_name

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        return [
            TaskItem(number, str(number), (), "q" * (1 + number % 2) + str(number), (str(number),))
            for number in range(samples or 12)
        ]


def echo(request: Request, compressor: Compressor | None) -> str:
    """Right without a compressor; with one, every fourth answer is wrong."""
    number = request.question.lstrip("q")
    return "wrong" if compressor is not None and int(number) % 4 == 0 else number


def run(vlm: Any, **changes: Any) -> pd.DataFrame:
    usual: dict[str, Any] = {
        "tasks": [Sums()],
        "methods": {"vanilla": None, "TGV-KV": TGVKV(retention=0.5)},
        "samples": 10,
        "batch_size": 4,
        "progress": False,
    }
    usual.update(changes)
    return evaluate(vlm, **usual)
