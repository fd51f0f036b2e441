"""Scores of a checkpoint, kind by kind and in several processes; finished kinds are kept."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tqdm.auto import tqdm

from lightkv.embedded.location import WEIGHTS
from lightkv.embedded.qwen.evaluate import Answerer, evaluate
from lightkv.embedded.qwen.items import KINDS

logger = logging.getLogger(__name__)

SCORES: Final = "scores.json"
"""File of the finished kinds in the folder of the state."""
_PROMPTS: Final = {"cpu": 25, "cuda": 50}


@dataclass(frozen=True)
class Scoring:
    """What is asked of which checkpoint.

    Attributes:
        folder: Of the checkpoint.
        count: Items of every kind.
        seed: Of the items.
        device: ``cpu`` or ``cuda``.
        processes: How many kinds are asked at a time.
    """

    folder: Path
    count: int
    seed: int
    device: str = "cpu"
    processes: int = 1

    @property
    def identity(self) -> dict[str, Any]:
        """What finished kinds must agree in to be used again."""
        weights = hashlib.sha256((self.folder / WEIGHTS).read_bytes()).hexdigest()
        return {"weights": weights, "count": self.count, "seed": self.seed}


def score(scoring: Scoring, state: Path) -> dict[str, Any]:
    """The metrics of all kinds; those finished before, for the same weights, are not asked again.

    Args:
        scoring: What to ask.
        state: Folder of ``scores.json``, which is rewritten after every kind.

    Returns:
        What :func:`lightkv.embedded.qwen.evaluate.evaluate` does for all kinds.
    """
    parts = _finished(scoring, state)
    missing = [kind for kind in KINDS if kind not in parts]
    for kind, part in tqdm(_asked(scoring, missing), "kinds", len(missing)):
        parts[kind] = part
        text = json.dumps(scoring.identity | {"parts": parts}, indent=1)
        partial = state / (SCORES + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(state / SCORES)
        shares = {name: part["kinds"][kind][name]["share"] for name in ("full", "blank", "swapped")}
        logger.info("%s %s", kind, shares)
    metrics: dict[str, Any] = {"count": scoring.count, "seed": scoring.seed}
    for name in ("kinds", "by_hint", "legend_by_length"):
        metrics[name] = {k: v for kind in KINDS for k, v in parts[kind][name].items()}
    return metrics


def _finished(scoring: Scoring, state: Path) -> dict[str, Any]:
    if not (state / SCORES).exists():
        return {}
    kept = json.loads((state / SCORES).read_text(encoding="utf-8"))
    parts: dict[str, Any] = kept.pop("parts")
    return parts if kept == scoring.identity else {}


def _asked(scoring: Scoring, kinds: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if scoring.processes == 1 or len(kinds) < 2:
        yield from (_ask((scoring, kind)) for kind in kinds)
        return
    processes = min(scoring.processes, len(kinds))
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap_unordered(_ask, [(scoring, kind) for kind in kinds])


def _ask(task: tuple[Scoring, str]) -> tuple[str, dict[str, Any]]:
    scoring, kind = task
    answerer = Answerer.load(scoring.folder, scoring.device, _PROMPTS[scoring.device])
    return kind, evaluate(answerer, scoring.count, scoring.seed, [kind])
