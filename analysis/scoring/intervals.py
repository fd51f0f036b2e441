"""Means, differences and correlations of scores with 95 % intervals: all of them are made here.

The unit is the question, or the picture where several questions are about one. A score over
several tasks is the mean of the tasks' means. Which interval is taken depends on the scores:

* one share of zero-or-one scores: Wilson's score interval (1927);
* differences of zero-or-one scores, and means over several tasks of such: the normal interval after
  each task got pseudo-questions at both ends of what is possible, so that scores that don't vary
  still leave room for error (Price and Bonett, 2004, for sums of shares; Bonett and Price, 2012,
  for paired differences);
* graded scores: Student's t, with Welch's and Satterthwaite's degrees of freedom over tasks;
* other statistics, such as rank correlations: the bootstrap over questions within each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from analysis.scoring.estimate import LEVEL, Estimate, Resampled, Student, Wilson
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    import pandas as pd

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

RESAMPLES: Final = 9999
QUESTION: Final = ("task", "seed", "item")
"""Columns that name a question."""

PICTURE: Final = "picture"
"""Column that tells which questions are about one picture, where a frame has it."""

PSEUDO: Final = 2.0
"""Pseudo-questions at each end, all tasks together. Bonett and Price give paired differences one;
with two, differences of up to 0.2 are missed on either side in at most 5 % instead of 6.5 %."""


def mean_of(
    scores: ArrayLike,
    *,
    pictures: ArrayLike | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Mean of scores with its interval.

    Args:
        scores: One a question.
        pictures: What each question is about; those of one picture are not independent.
        level: Of the interval.

    Raises:
        InputError: There are no scores, or some are missing.
        InvalidValueError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InvalidValueError("level", level, "between 0 and 1")
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        raise InputError("a mean needs at least one score, and none of them missing")
    return _over_tasks([_Task(values, _codes(pictures), _ends(values))], level)


def mean(frame: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of a column over the questions of a frame, tasks weighted alike.

    Rows of one question are averaged first; rows without a value don't count.
    """
    tasks = [
        _Task(values[0], pictures, _ends(values[0]))
        for values, pictures in _paired([frame], column)
    ]
    return _over_tasks(tasks, LEVEL)


def difference(
    one: pd.DataFrame,
    other: pd.DataFrame,
    column: str = "score",
    *,
    share: float = 1.0,
    level: float = LEVEL,
) -> Estimate:
    """Mean of ``one`` minus ``share`` times the mean of ``other``, paired by question.

    Only questions that both answered count; tasks are weighted alike. Whether one keeps at least
    95 % of another is whether the difference with ``share`` 0.95 is above 0.
    """
    tasks = []
    for values, pictures in _paired([one, other], column):
        ends = None if _ends(values) is None else (-share, 1.0)
        tasks.append(_Task(values[0] - share * values[1], pictures, ends))
    return _over_tasks(tasks, level)


def resampled(statistic: Callable[[Any], float], tasks: ArrayLike, *, seed: int = 0) -> Estimate:
    """A statistic of questions with its percentile bootstrap interval.

    Args:
        statistic: From the numbers of questions, (n,) with repeats, to a number.
        tasks: The task of each question; questions are resampled within their task.
        seed: Of the draws.

    Draws in which the statistic is not a number don't count.
    """
    from scipy import stats

    codes = _codes(tasks)
    groups = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    value = float(statistic(np.concatenate(groups)))
    if min(map(len, groups)) < 2 or not np.isfinite(value):
        return Estimate(value, len(codes), "none", None)
    bootstrap = stats.bootstrap(
        tuple(groups),
        lambda *chosen: statistic(np.concatenate(chosen)),
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(seed),
    )
    draws = np.sort(bootstrap.bootstrap_distribution)
    draws = draws[np.isfinite(draws)]
    pivot = Resampled(tuple(draws.tolist())) if len(draws) > 1 else None
    return Estimate(value, len(codes), "bootstrap" if pivot else "none", pivot)


# ------------------------------------------------------------------ parts


@dataclass(frozen=True)
class _Task:
    """Scores (questions,) of one task, pictures (questions,), ends of what is possible if 0/1."""

    scores: Values
    pictures: Any
    ends: tuple[float, float] | None

    @property
    def clustered(self) -> bool:
        return self.pictures is not None and len(np.unique(self.pictures)) < len(self.scores)

    def moments(self, pseudo: float) -> Student:
        """Mean with its standard error, after ``pseudo`` questions at each end."""
        count = len(self.scores)
        if self.ends is not None:
            total = count + 2 * pseudo
            mean = (self.scores.sum() + pseudo * sum(self.ends)) / total
            square = (self.scores**2).sum() + pseudo * sum(end**2 for end in self.ends)
            variance, freedom = (square / total - mean**2) / total, np.inf
        else:
            mean, variance = self.scores.mean(), self.scores.var(ddof=1) / count
            freedom = count - 1.0
        if self.clustered:
            groups = len(np.unique(self.pictures))
            variance, freedom = variance * self._inflation(), min(freedom, groups - 1.0)
        return Student(float(mean), float(np.sqrt(variance)), freedom)

    def _inflation(self) -> float:
        """Variance over pictures by that over questions, at least 1."""
        count, left = len(self.scores), self.scores - self.scores.mean()
        _, place = np.unique(self.pictures, return_inverse=True)
        sums = np.bincount(place, left)
        naive = (left**2).sum() / (count - 1)
        if not naive:
            return 1.0
        return max(1.0, float((sums**2).sum() / (count * naive) * len(sums) / (len(sums) - 1)))


def _over_tasks(tasks: Sequence[_Task], level: float) -> Estimate:
    """The mean of the tasks' means."""
    n = sum(len(task.scores) for task in tasks)
    if not n:
        return Estimate(float("nan"), 0, "none", None, level)
    value = float(np.mean([task.scores.mean() for task in tasks]))
    first = tasks[0]
    if len(tasks) == 1 and first.ends == (0.0, 1.0) and not first.clustered:
        return Estimate(value, n, "wilson", Wilson(round(first.scores.sum()), n), level)
    if any(len(task.scores) < 2 and task.ends is None for task in tasks):
        return Estimate(value, n, "none", None, level)
    if any(task.clustered and len(np.unique(task.pictures)) < 2 for task in tasks):
        return Estimate(value, n, "none", None, level)
    parts = [task.moments(PSEUDO / len(tasks)) for task in tasks]
    variances = np.array([part.error**2 for part in parts]) / len(tasks) ** 2
    spent = sum(v**2 / part.freedom for v, part in zip(variances, parts, strict=True))
    freedom = float(variances.sum() ** 2 / spent) if spent else np.inf
    centre = float(np.mean([part.centre for part in parts]))
    pivot = Student(centre, float(np.sqrt(variances.sum())), freedom)
    return Estimate(value, n, "normal" if np.isinf(freedom) else "t", pivot, level)


def _ends(values: Values) -> tuple[float, float] | None:
    """0 and 1 if all scores are either."""
    return (0.0, 1.0) if np.isin(values, (0.0, 1.0)).all() else None


def _codes(names: Any) -> Any:
    return None if names is None else np.unique(np.asarray(names), return_inverse=True)[1]


def _paired(frames: Sequence[pd.DataFrame], column: str) -> list[tuple[Values, Any]]:
    """Per task the scores (frames, questions) of questions in every frame, and their pictures."""
    keys = [name for name in QUESTION if name in frames[0].columns]
    columns = [frame.groupby(keys)[column].mean().dropna() for frame in frames]
    shared = columns[0].index
    for other in columns[1:]:
        shared = shared.intersection(other.index)
    pictures = None
    if PICTURE in frames[0].columns:
        pictures = frames[0].groupby(keys)[PICTURE].first().loc[shared]
    tasks = shared.get_level_values("task") if "task" in keys else np.zeros(len(shared))
    return [
        (
            np.stack([own.loc[shared[tasks == task]].to_numpy(float) for own in columns]),
            None if pictures is None else _codes(pictures[tasks == task]),
        )
        for task in dict.fromkeys(tasks)
    ]
