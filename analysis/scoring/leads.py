"""Comparisons of two methods over several tasks, whatever their scores are.

Questions of our own tasks have a score each, and a comparison is the mean of differences, question
by question (:mod:`analysis.scoring.intervals`). A benchmark has scores of the whole set, some of
them points without an upper end (MME, CIDEr). There a comparison is the mean over scores of their
paired differences (:func:`~analysis.scoring.benchmarks.benchmark_differences`), each as a share of
the full cache's score. Errors of scores of the same answers (accuracy and F1 of POPE) are added, as
if they erred together, which is the most that they can; all others are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.scoring.benchmarks import PREFIX, benchmark_differences, benchmark_scores, parts_of
from analysis.scoring.estimate import Estimate, Student, unsure
from analysis.scoring.formulas import Mean, formula
from analysis.scoring.intervals import difference
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Score = tuple[str, str]
"""A task, and the name of its score, "" for the only one."""


def by_score(frame: pd.DataFrame, scores: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The same rows, those of benchmarks once for each of the given scores.

    Args:
        frame: Question rows with a ``method`` label for each setting.
        scores: Names of scores by task. Rows of other tasks stay as they are.

    Returns:
        Rows of a score have ``lmms/`` and its name as ``metric``, and in ``outcome`` what only this
        score is made of, prepared over the questions of their setting.

    Raises:
        UnsupportedError: Captions can't be tokenised here.
    """
    import pandas as pd

    if not set(scores) & set(frame["task"]):
        return frame
    parts = []
    for task, rows in frame.groupby("task", sort=False):
        if str(task) not in scores:
            parts.append(rows)
            continue
        for _, answers in rows.groupby("method", sort=False):
            parts += _apart(answers, scores[str(task)])
    return pd.concat(parts, ignore_index=True)


def _apart(rows: pd.DataFrame, names: Sequence[str]) -> list[pd.DataFrame]:
    """Rows of one setting on a benchmark, once a score."""
    apart = []
    for name, part in parts_of(rows.sort_values("item")).items():
        score = formula(name, part.outcomes)
        if name not in names or score is None:
            continue
        # The numbers of a mean are computed once, not in each of many comparisons.
        outcomes = score.scores(part.outcomes) if isinstance(score, Mean) else part.outcomes
        packed = {
            item: {"results": [[[name], outcome]]}
            for item, outcome in zip(part.items, outcomes, strict=True)
        }
        mine = rows[rows["item"].isin(packed)]
        apart.append(mine.assign(metric=PREFIX + name, outcome=mine["item"].map(packed)))
    return apart


def apart_by_score(rows: pd.DataFrame) -> dict[Score, pd.DataFrame]:
    """Rows of each task, or of each score of a benchmark where :func:`by_score` told them apart."""
    groups: dict[Score, pd.DataFrame] = {}
    for task, answers in rows.groupby("task", sort=False):
        if not has_scores(answers):
            groups[str(task), ""] = answers
            continue
        for metric, several in answers.groupby("metric", sort=False):
            groups[str(task), str(metric).removeprefix(PREFIX)] = several
    return groups


def has_scores(rows: pd.DataFrame) -> bool:
    """Whether some of the rows are those of a score of a benchmark, see :func:`by_score`."""
    if "metric" not in rows.columns:
        return False
    named = rows["task"].astype(str).str.startswith(PREFIX)
    return bool((named & (rows["task"] != rows["metric"])).any())


def scores_of(rows: pd.DataFrame) -> dict[Score, float]:
    """Score of each task, or each score of a benchmark, of one setting."""
    return {
        (task, name): benchmark_scores(answers)[name].value if name else answers["score"].mean()
        for (task, name), answers in apart_by_score(rows).items()
    }


def lead(
    one: pd.DataFrame, other: pd.DataFrame, whole: pd.DataFrame | None, *, share: float = 1.0
) -> Estimate:
    """Score of ``one`` minus a share of that of ``other``, over the tasks that both answered.

    Args:
        one: Rows of one setting; those of benchmarks told apart by :func:`by_score`.
        other: Rows of another.
        whole: Rows of the full cache, of whose scores differences on benchmarks are shares.
        share: Of the other's score that is taken off.

    Returns:
        On our tasks a difference of scores, on benchmarks one of shares of the full cache's; where
        the full cache scores 0 or was not asked, a score is left out.

    Raises:
        InputError: Benchmarks are compared without the full cache, or on different questions.
    """
    if not has_scores(one):
        return difference(one, other, share=share)
    if whole is None:
        raise InputError("comparisons on benchmarks need the full cache's rows")
    return relative_lead(one, other, whole, share=share)


def relative_lead(
    one: pd.DataFrame, other: pd.DataFrame, whole: pd.DataFrame, *, share: float = 1.0
) -> Estimate:
    """As :func:`lead`, in shares of the full cache's score, which count as known."""
    full = {name: score for name, score in scores_of(whole).items() if score > 0}
    mine, theirs = apart_by_score(one), apart_by_score(other)
    names = [name for name in mine if name in theirs and name in full]
    if not names:
        return unsure(float("nan"), 0)
    groups: list[tuple[set[Any], list[tuple[float, Estimate]]]] = []
    for name in names:
        gap = _difference(name, mine[name], theirs[name], share)
        questions = {(name[0], item) for item in mine[name]["item"]}
        term = 1 / (full[name] * len(names)), gap
        shared = next((known for known in groups if known[0] & questions), None)
        if shared is None:
            groups.append((questions, [term]))
        else:
            shared[0].update(questions)
            shared[1].append(term)
    return weighted_sum([terms for _, terms in groups], sum(len(asked) for asked, _ in groups))


def _difference(name: Score, one: pd.DataFrame, other: pd.DataFrame, share: float) -> Estimate:
    if not name[1]:
        return difference(one, other, share=share)
    return benchmark_differences(one, other, share=share)[name[1]][2]


def weighted_sum(groups: Sequence[Sequence[tuple[float, Estimate]]], n: int) -> Estimate:
    """Weighted sum of differences: errors are added within a group, variances over groups.

    Freedom is Satterthwaite's over groups, each with the least of its differences; third moments
    are added over groups, a group being as skewed as its differences on average. A difference
    without an interval leaves the sum without one.

    Args:
        groups: Weights and differences; those of a group are about the same questions.
        n: Questions behind them.
    """
    value = sum(weight * one.value for terms in groups for weight, one in terms)
    known = [
        [(weight, one.pivot) for weight, one in terms if isinstance(one.pivot, Student)]
        for terms in groups
    ]
    if any(len(sure) < len(terms) for sure, terms in zip(known, groups, strict=True)):
        return unsure(value, n)
    centre = sum(weight * pivot.centre for sure in known for weight, pivot in sure)
    errors = np.array([sum(weight * pivot.error for weight, pivot in sure) for sure in known])
    freedoms = np.array([min(pivot.freedom for _, pivot in sure) for sure in known])
    variance, spent = float((errors**2).sum()), float((errors**4 / freedoms).sum())
    skewed = [sum(w * pivot.error * pivot.skewness for w, pivot in sure) for sure in known]
    third = float((errors**2 * np.array(skewed)).sum())
    student = Student(
        centre,
        variance**0.5,
        variance**2 / spent if spent else np.inf,
        third / variance**1.5 if variance else 0.0,
    )
    return Estimate(value, n, "t", student)
