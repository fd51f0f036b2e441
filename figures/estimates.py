"""Means, differences and shares of scores with 95 % intervals, paired by question.

Questions are resampled within their task, the same resampling for both sides of a comparison, and
a score over several tasks is the mean of the tasks' means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
QUESTION: Final = ("task", "seed", "item")
"""Columns that name a question."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from ``questions`` questions.

    ``same`` tells that every question agreed in it (all differences 0), so that the interval is a
    point for want of variation, not for want of error.
    """

    value: float
    low: float
    high: float
    questions: int
    same: bool = False

    def __format__(self, spec: str) -> str:
        form = spec or ".2f"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def mean(frame: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of a column over the questions of a frame."""
    return _estimate([frame], lambda means: means[0], column)


def difference(better: pd.DataFrame, worse: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of ``better`` minus mean of ``worse`` over the questions that both answered."""
    return _estimate([better, worse], lambda means: means[0] - means[1], column)


def share(part: pd.DataFrame, whole: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of ``part`` as a share of the mean of ``whole``; NaN where the whole is 0."""
    return _estimate([part, whole], lambda means: means[0] / means[1], column)


def _estimate(
    frames: Sequence[pd.DataFrame], combine: Callable[[list[Array]], Array], column: str
) -> Estimate:
    blocks = _paired(frames, column)
    questions = sum(block.shape[1] for block in blocks)
    if not questions:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(0)
    centre: list[Array] = [np.zeros(1) for _ in frames]
    resampled: list[Array] = [np.zeros(RESAMPLES) for _ in frames]
    for block in blocks:
        size = block.shape[1]
        drawn = generator.integers(size, size=(RESAMPLES, size))
        for place, values in enumerate(block):
            centre[place] = centre[place] + values.mean() / len(blocks)
            resampled[place] = resampled[place] + values[drawn].mean(1) / len(blocks)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(combine(centre)[0])
        spread = combine(resampled)
    spread = spread[np.isfinite(spread)]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(spread, [tail, 100 - tail]) if len(spread) else (np.nan, np.nan)
    same = len(frames) == 2 and all(bool((block[0] == block[1]).all()) for block in blocks)
    return Estimate(value, float(low), float(high), questions, same)


def _paired(frames: Sequence[pd.DataFrame], column: str) -> list[Array]:
    """One block (frames, questions) per task, of the questions that are in every frame."""
    keys = [name for name in QUESTION if name in frames[0].columns]
    columns = [frame.groupby(keys)[column].mean() for frame in frames]
    shared = columns[0].index
    for other in columns[1:]:
        shared = shared.intersection(other.index)
    aligned = [c.loc[shared].dropna() for c in columns]
    for other in aligned:
        shared = shared.intersection(other.index)
    tasks = shared.get_level_values("task") if "task" in keys else np.zeros(len(shared))
    return [
        np.stack([c.loc[shared[tasks == task]].to_numpy(float) for c in aligned])
        for task in dict.fromkeys(tasks)
    ]
