"""From question rows to means with confidence intervals, and to paired comparisons.

Intervals are those of :mod:`analysis.scoring.intervals`. Comparisons of zero-or-one scores also get
the exact McNemar test, all others a paired permutation test. No correction for the number of
comparisons is made: with many cells some intervals miss their value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.benchmarks import PREFIX, benchmark_differences, benchmark_scores
from analysis.scoring.estimate import LEVEL, Estimate
from analysis.scoring.intervals import PICTURE, difference, mean_of
from analysis.scoring.leads import apart_by_score, has_scores
from analysis.scoring.metrics import Metric, metric
from lightkv.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

Scores = NDArray[np.float64]

RESAMPLES: Final = 2000
PAIRING: Final = ("protocol", "task", "seed", "item")
CELL: Final = ("protocol", "task", "method")
_MEANS: Final = ("kv_bytes", "kv_share", "token_share", "requested_retention", "seconds")


def rescore(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The same rows scored by another metric, from the stored answers and references.

    Scores of a corpus metric are missing here; :func:`summarise` and :func:`compare` compute them
    over each of their groups.

    Raises:
        UnknownNameError: No metric has that name.
        InputError: A question has too few references for it.
    """
    measure = metric(name)
    for references in frame["reference"]:
        measure.check(references)
    scores = _asked(frame, measure) if measure.per_item else float("nan")
    return frame.assign(metric=name, score=scores)


def summarise(
    frame: pd.DataFrame,
    by: Sequence[str] = CELL,
    *,
    confidence: float = LEVEL,
) -> pd.DataFrame:
    """One row per group and score: n, score with bounds, means of what was held and processed.

    A group has the score of its metric; a benchmark's group has all scores of its harness that have
    a formula in :mod:`analysis.scoring.formulas`, or those that
    :func:`~analysis.scoring.leads.by_score` told apart.

    Args:
        frame: Rows of :func:`analysis.asking.evaluation.evaluate`.
        by: Columns that make a group; each group has one metric.
        confidence: Of the intervals.

    Returns:
        Columns: ``by``, metric, n, score, low, high, interval, kv_bytes, kv_share, token_share,
        requested_retention, seconds; in the order in which groups first appear.

    Raises:
        InputError: A group has several metrics, or scores are missing.
        InvalidValueError: ``confidence`` is not between 0 and 1.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        rows += [
            {
                **dict(zip(by, key, strict=True)),
                "metric": name,
                "n": score.n,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "interval": score.method,
                **{mean: float(group[mean].mean()) for mean in _MEANS},
            }
            for name, score in _estimates(group, confidence).items()
        ]
    columns = [*by, "metric", "n", "score", "low", "high", "interval", *_MEANS]
    return pd.DataFrame(rows, columns=columns)


def compare(
    frame: pd.DataFrame,
    method: str,
    baseline: str,
    *,
    confidence: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Two methods on the same questions, by protocol and task.

    Args:
        frame: Rows of :func:`analysis.asking.evaluation.evaluate`.
        method: Label in its ``method`` column.
        baseline: Another label there.
        confidence: Of the interval of the difference.
        seed: Of the permutations.

    Returns:
        Columns: protocol, task, method, baseline, metric, n, score, baseline_score, difference,
        low, high (paired by question), wins, losses, p_value (two-sided) and test ("mcnemar",
        "permutation"). Scores of benchmarks have no wins, losses, p-value and test.

    Raises:
        UnknownNameError: A label is not in the frame.
        InputError: The methods were asked different questions.
    """
    import pandas as pd

    known = list(frame["method"].unique())
    for label in (method, baseline):
        if label not in known:
            raise UnknownNameError("method", label, known)
    rows = [
        {"protocol": protocol, "task": task, "method": method, "baseline": baseline, **compared}
        for (protocol, task), group in frame.groupby(["protocol", "task"], sort=False)
        for compared in (
            _compared_benchmark(group, method, baseline, confidence)
            if _is_benchmark(group)
            else [_compared(group, method, baseline, confidence, seed)]
        )
    ]
    return pd.DataFrame(rows)


def _compared_benchmark(
    group: pd.DataFrame, method: str, baseline: str, confidence: float
) -> list[dict[str, Any]]:
    """One row per score of a benchmark; scores of whole sets have no wins, losses and p-values."""
    one, other = (group[group["method"] == label] for label in (method, baseline))
    return [
        {
            "metric": name,
            "n": lead.n,
            "score": score,
            "baseline_score": baseline_score,
            "difference": lead.value,
            "low": lead.low,
            "high": lead.high,
        }
        for name, (score, baseline_score, lead) in benchmark_differences(
            one, other, confidence
        ).items()
    ]


def _compared(
    group: pd.DataFrame, method: str, baseline: str, confidence: float, seed: int
) -> dict[str, Any]:
    measure = _one_metric(group)
    rows = []
    for label in (method, baseline):
        answers = group[group["method"] == label]
        rows.append(answers.assign(score=_scores(answers, measure)))
    first, second = (answers.set_index(list(PAIRING))["score"] for answers in rows)
    paired = second.reindex(first.index)
    if len(second) != len(first) or paired.isna().any():
        raise InputError(
            f"{method!r} and {baseline!r} were asked different questions of {group['task'].iat[0]}"
        )
    lead = difference(rows[0], rows[1], level=confidence)
    differences = (first - paired).to_numpy(np.float64)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return {
        "metric": measure.name,
        "n": len(differences),
        "score": float(first.mean()),
        "baseline_score": float(paired.mean()),
        "difference": float(differences.mean()),
        "low": lead.low,
        "high": lead.high,
        "wins": wins,
        "losses": losses,
        "p_value": _mcnemar(wins, losses) if measure.binary else _permutation(differences, seed),
        "test": "mcnemar" if measure.binary else "permutation",
    }


def _estimates(group: pd.DataFrame, confidence: float) -> dict[str, Estimate]:
    """The scores of a group by name; where they were told apart, those and no sum of them."""
    if has_scores(group):
        apart = {name: rows for (_, name), rows in apart_by_score(group).items()}
        return {name: benchmark_scores(rows, confidence)[name] for name, rows in apart.items()}
    if _is_benchmark(group):
        return benchmark_scores(group, confidence)
    measure = _one_metric(group)
    pictures = group[PICTURE].tolist() if PICTURE in group.columns else None
    return {measure.name: mean_of(_scores(group, measure), pictures=pictures, level=confidence)}


def _is_benchmark(group: pd.DataFrame) -> bool:
    return bool(group["metric"].astype(str).str.startswith(PREFIX).all())


def _one_metric(group: pd.DataFrame) -> Metric:
    names = group["metric"].unique()
    if len(names) != 1:
        raise InputError(f"one group has the metrics {sorted(names)}; group by task as well")
    return metric(str(names[0]))


def _scores(group: pd.DataFrame, measure: Metric) -> list[float]:
    """Stored scores; those of a corpus metric are computed with the rows as the corpus."""
    return group["score"].tolist() if measure.per_item else _asked(group, measure)


def _asked(group: pd.DataFrame, measure: Metric) -> list[float]:
    return measure.scores(group["answer"].tolist(), group["reference"].tolist())


def _mcnemar(wins: int, losses: int) -> float:
    """Exact McNemar test: are wins and losses equally likely?"""
    from scipy import stats

    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _permutation(differences: Scores, seed: int) -> float:
    """Paired permutation test of a mean difference of zero: signs are exchangeable."""
    from scipy import stats

    if len(differences) < 2 or not differences.any():
        return 1.0
    test = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
