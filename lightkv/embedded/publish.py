"""Turn a finished training run into the files that ship."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

LOG: Final = "training_log.csv"
METRICS: Final = "metrics.json"
CARD: Final = "README.md"


def export(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write weights, configuration, tokenizer, processor and chat template to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: Any = model
    plain.to(dtype=torch.float32, device="cpu").eval().save_pretrained(folder)
    writer: Any = processor
    writer.save_pretrained(folder)


def write_log(lines: Sequence[dict[str, float | int | str]], folder: Path) -> None:
    """Write the training log as CSV; a column is empty where a line has no such value."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with (folder / LOG).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


def front_matter(kind: str) -> str:
    """What a model hub reads of a card, for a model of a kind such as ``llava``."""
    return f"""\
---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [{kind}, synthetic, kv-cache]
---

"""


def versions() -> dict[str, str]:
    """Of the software that trained a model, for its metrics."""
    return {"torch": torch.__version__, "python": platform.python_version()}


def write_metrics(metrics: dict[str, Any], folder: Path) -> None:
    """Write the metrics as JSON."""
    text = json.dumps(metrics, indent=1, ensure_ascii=False)
    (folder / METRICS).write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics written beside a checkpoint."""
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return metrics
