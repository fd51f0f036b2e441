"""Means, differences and correlations of scores with 95 % intervals: all of them are made here.

The unit is the question, or the picture where several questions are about one. A score over
several tasks is the mean of the tasks' means. Which interval is taken depends on the scores:

* one share of zero-or-one scores: Wilson's score interval (1927);
* differences of zero-or-one scores, and means over several tasks of such: the normal interval after
  each task got pseudo-questions at both ends of what is possible, so that scores that don't vary
  still leave room for error (Price and Bonett, 2004, for sums of shares; Bonett and Price, 2012,
  for paired differences);
* graded scores: Student's t, with Welch's and Satterthwaite's degrees of freedom over tasks, and
  corrected for skewness (Hall, 1992), since captions of a model that is nearly always right, or
  nearly always wrong, score unevenly; paired differences of a task that hardly vary get
  pseudo-questions too;
* other statistics, such as rank correlations: the bootstrap over questions within each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from analysis.scoring.estimate import LEVEL, Estimate, Resampled, Student, Wilson, unsure
from analysis.scoring.moments import Values, moments
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES: Final = 9999
BATCH: Final = 500
"""Draws that are in memory at once."""

QUESTION: Final = ("task", "seed", "item")
"""Columns that name a question."""

PICTURE: Final = "picture"
"""Column that tells which questions are about one picture, where a frame has it."""

PSEUDO: Final = 2.0
"""Pseudo-questions at each end, all tasks together. Bonett and Price give paired differences one;
with two, differences of up to 0.2 are missed on either side in at most 5 % instead of 6.5 %."""

SPARSE: Final = 6
"""Graded differences vary enough for Student's t if this many questions differ from most others."""


def mean_of(
    scores: ArrayLike,
    *,
    tasks: ArrayLike | None = None,
    pictures: ArrayLike | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Mean of scores with its interval.

    Args:
        scores: (n,), one a question.
        tasks: (n,) the task of each; their means are averaged, whatever their sizes.
        pictures: (n,) what each is about; questions about one picture are not independent.
        level: Of the interval.

    Raises:
        InputError: There are no scores, or some are missing.
        InvalidValueError: ``level`` is not between 0 and 1.
    """
    values = _checked(scores, level)
    return _over_tasks(values, (0.0, 1.0), tasks, pictures, level)


def difference_of(
    one: ArrayLike,
    other: ArrayLike,
    *,
    share: float = 1.0,
    tasks: ArrayLike | None = None,
    pictures: ArrayLike | None = None,
    level: float = LEVEL,
    scores: bool = True,
) -> Estimate:
    """Mean of ``one`` minus ``share`` times the mean of ``other``, question by question.

    Whether one keeps at least 95 % of another is whether this with ``share`` 0.95 is above 0.

    Args:
        one: (n,) scores.
        other: (n,) scores of the same questions.
        share: Of the other that is taken off.
        tasks: As of :func:`mean_of`.
        pictures: Likewise.
        level: Likewise.
        scores: Whether they are scores from 0 to 1, whose differences may come out alike by chance.

    Raises:
        InputError: There are no scores, some are missing, or they differ in number.
        InvalidValueError: ``level`` is not between 0 and 1.
    """
    first, second = _checked(one, level), _checked(other, level)
    if len(first) != len(second):
        raise InputError(f"{len(first)} scores can't be paired with {len(second)}")
    within = min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) <= 1
    right_and_wrong = _binary(first) and _binary(second)
    ends = (-share, 1.0) if right_and_wrong or (scores and within) else None
    return _over_tasks(first - share * second, ends, tasks, pictures, level, sparse=scores)


def mean(frame: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of a column over the questions of a frame, tasks weighted alike.

    Rows of one question are averaged first; rows without a value don't count.
    """
    (scores,), names = _paired([frame], column)
    return mean_of(scores, **names) if len(scores) else unsure(float("nan"), 0)


def difference(
    one: pd.DataFrame,
    other: pd.DataFrame,
    column: str = "score",
    *,
    share: float = 1.0,
    level: float = LEVEL,
) -> Estimate:
    """:func:`difference_of` a column over the questions that both frames hold."""
    (first, second), names = _paired([one, other], column)
    if not len(first):
        return unsure(float("nan"), 0)
    scores = column == "score"
    return difference_of(first, second, share=share, level=level, scores=scores, **names)


def resampled(
    statistic: Callable[..., Any],
    tasks: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A statistic of questions with its percentile bootstrap interval.

    Args:
        statistic: From the numbers (..., n) of each task's questions, with repeats, to numbers
            (...); one argument a task, in their sorted order.
        tasks: (n,) the task of each question; questions are resampled within their task.
        seed: Of the draws.
        resamples: How many draws.

    Draws in which the statistic is not a number don't count.
    """
    from scipy import stats

    codes = _codes(tasks)
    groups = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    value = float(statistic(*groups))
    if min(map(len, groups)) < 2 or not np.isfinite(value):
        return unsure(value, len(codes))
    bootstrap = stats.bootstrap(
        tuple(groups),
        lambda *sampled, axis: statistic(*sampled),
        n_resamples=resamples,
        batch=BATCH,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    draws = np.sort(bootstrap.bootstrap_distribution)
    pivot = Resampled(tuple(draws[np.isfinite(draws)].tolist()))
    return Estimate(value, len(codes), "bootstrap", pivot)


def rank_correlation(left: ArrayLike, right: ArrayLike) -> Any:
    """Spearman's ρ (...) along the last axis of (..., n), NaN where a side does not vary."""
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(side, float), axis=-1) for side in (left, right)]
    a, b = (side - side.mean(-1, keepdims=True) for side in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


# ------------------------------------------------------------------ parts


def _over_tasks(
    values: Values,
    ends: tuple[float, float] | None,
    tasks: Any,
    pictures: Any,
    level: float,
    *,
    sparse: bool = False,
) -> Estimate:
    """The mean of the tasks' means.

    ``ends`` is what is possible, None if that is not known; ``sparse`` says whether values may come
    out alike by chance.
    """
    codes = np.zeros(len(values), int) if tasks is None else _codes(tasks)
    places = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    value = float(np.mean([values[place].mean() for place in places]))
    about = [None if pictures is None else _clusters(np.asarray(pictures)[p]) for p in places]
    bounds = [ends if _coarse(values[place], ends, sparse) else None for place in places]
    if ends == (0.0, 1.0) and len(places) == 1 and about[0] is None and _binary(values):
        pivot = Wilson(round(values.sum()), len(values))
        return Estimate(value, len(values), "wilson", pivot, level)
    if any(
        (len(place) < 2 and limits is None) or (clusters is not None and clusters.max() == 0)
        for place, limits, clusters in zip(places, bounds, about, strict=True)
    ):
        return Estimate(value, len(values), "none", None, level)
    parts = [
        moments(values[place], limits, clusters, PSEUDO / len(places))
        for place, limits, clusters in zip(places, bounds, about, strict=True)
    ]
    variances = np.array([part.error**2 for part in parts]) / len(parts) ** 2
    spent = sum(v**2 / part.freedom for v, part in zip(variances, parts, strict=True))
    freedom = float(variances.sum() ** 2 / spent) if spent else np.inf
    centre, error = float(np.mean([part.centre for part in parts])), float(np.sqrt(variances.sum()))
    third = sum(part.skewness * v**1.5 for part, v in zip(parts, variances, strict=True))
    student = Student(centre, error, freedom, float(third / error**3) if error else 0.0)
    return Estimate(value, len(values), "normal" if np.isinf(freedom) else "t", student, level)


def _checked(scores: ArrayLike, level: float) -> Values:
    if not 0 < level < 1:
        raise InvalidValueError("level", level, "between 0 and 1")
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        raise InputError("an interval needs at least one score, and none of them missing")
    return values


def _binary(values: Values) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _coarse(values: Values, ends: tuple[float, float] | None, sparse: bool) -> bool:
    """Whether scores between ``ends`` are of right and wrong, or differences hardly vary."""
    if ends is None:
        return False
    low, high = ends
    if np.isin(values, (0.0, low, high, low + high)).all():
        return True
    usual = np.unique(values, return_counts=True)[1].max()
    return bool(sparse and len(values) > SPARSE and len(values) - usual < SPARSE)


def _codes(names: Any) -> Any:
    return np.unique(np.asarray(names), return_inverse=True)[1]


def _clusters(pictures: Any) -> Any:
    """Codes from 0 on, None if every question is about a picture of its own."""
    codes = _codes(pictures)
    return codes if codes.max() + 1 < len(codes) else None


def _paired(frames: Sequence[pd.DataFrame], column: str) -> tuple[Values, dict[str, Any]]:
    """Scores (frames, n) of the questions in every frame, and their tasks and pictures."""
    keys = [name for name in QUESTION if name in frames[0].columns]
    columns = [frame.groupby(keys)[column].mean().dropna() for frame in frames]
    shared = columns[0].index
    for other in columns[1:]:
        shared = shared.intersection(other.index)
    names: dict[str, Any] = {}
    if "task" in keys:
        names["tasks"] = shared.get_level_values("task").to_numpy()
    if PICTURE in frames[0].columns:
        names["pictures"] = frames[0].groupby(keys)[PICTURE].first().loc[shared].to_numpy()
    return np.stack([scores.loc[shared].to_numpy(float) for scores in columns]), names
