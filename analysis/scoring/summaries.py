"""From question rows to means with confidence intervals, and to paired comparisons.

Zero-or-one scores get Wilson intervals and the exact McNemar test, all others bootstrap intervals
and a paired permutation test. Everything statistical is scipy's. No correction for the number of
comparisons is made: with many cells some intervals miss their value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.metrics import Metric, metric
from lightkv.errors import InputError, InvalidValueError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

Scores = NDArray[np.float64]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
PAIRING: Final = ("protocol", "task", "seed", "item")
CELL: Final = ("protocol", "task", "method")
_MEANS: Final = ("kv_bytes", "kv_share", "token_share", "requested_retention", "seconds")


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        n: Number of scores.
        mean: Their mean.
        low, high: Bounds, NaN where one score alone does not tell.
        method: "wilson" or "bootstrap".
    """

    n: int
    mean: float
    low: float
    high: float
    method: str


def estimate(
    scores: Sequence[float], *, binary: bool, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """Mean of scores with a Wilson (binary) or percentile bootstrap interval.

    Raises:
        InputError: There are no scores, or some are missing.
        InvalidValueError: ``confidence`` is not between 0 and 1.
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise InvalidValueError("confidence", confidence, "between 0 and 1")
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        raise InputError("a mean needs at least one score, and none of them missing")
    mean = float(values.mean())
    if binary:
        test = stats.binomtest(round(values.sum()), len(values))
        bounds = test.proportion_ci(confidence_level=confidence, method="wilson")
        return Estimate(len(values), mean, float(bounds.low), float(bounds.high), "wilson")
    low, high = _bootstrap(values, confidence, seed)
    return Estimate(len(values), mean, low, high, "bootstrap")


def rescore(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The same rows scored by another metric, from the stored answers and references.

    Scores of a corpus metric are missing here; :func:`summarise` and :func:`compare` compute them
    over each of their groups.

    Raises:
        UnknownNameError: No metric is called so.
        InputError: A question has too few references for it.
    """
    chosen = metric(name)
    for references in frame["reference"]:
        chosen.check(references)
    scores = _asked(frame, chosen) if chosen.per_item else float("nan")
    return frame.assign(metric=name, score=scores)


def summarise(
    frame: pd.DataFrame,
    by: Sequence[str] = CELL,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group: n, score with bounds, and means of what was held and processed.

    Args:
        frame: Rows of :func:`analysis.asking.evaluation.evaluate`.
        by: Columns that make a group; each group has one metric.
        confidence: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        Columns: ``by``, metric, n, score, low, high, interval, kv_bytes, kv_share, token_share,
        requested_retention, seconds; in the order in which groups first appear.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        chosen = _one_metric(group)
        found = estimate(
            _scores(group, chosen), binary=chosen.binary, confidence=confidence, seed=seed
        )
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "metric": chosen.name,
                "n": found.n,
                "score": found.mean,
                "low": found.low,
                "high": found.high,
                "interval": found.method,
                **{name: float(group[name].mean()) for name in _MEANS},
            }
        )
    columns = [*by, "metric", "n", "score", "low", "high", "interval", *_MEANS]
    return pd.DataFrame(rows, columns=columns)


def compare(
    frame: pd.DataFrame,
    method: str,
    baseline: str,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """Two methods on the same questions, by protocol and task.

    Args:
        frame: Rows of :func:`analysis.asking.evaluation.evaluate`.
        method: Label in its ``method`` column.
        baseline: Another label there.
        confidence: Of the interval of the difference.
        seed: Of bootstrap and permutations.

    Returns:
        Columns: protocol, task, method, baseline, metric, n, score, baseline_score, difference,
        low, high (paired bootstrap), wins, losses, p_value (two-sided) and test ("mcnemar",
        "permutation").

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
        {"protocol": protocol, "task": task, "method": method, "baseline": baseline}
        | _compared(group, method, baseline, confidence, seed)
        for (protocol, task), group in frame.groupby(["protocol", "task"], sort=False)
    ]
    return pd.DataFrame(rows)


def _compared(
    group: pd.DataFrame, method: str, baseline: str, confidence: float, seed: int
) -> dict[str, Any]:
    chosen = _one_metric(group)
    scores = {}
    for label in (method, baseline):
        own = group[group["method"] == label]
        scores[label] = own.assign(score=_scores(own, chosen)).set_index(list(PAIRING))["score"]
    first, second = scores[method], scores[baseline].reindex(scores[method].index)
    if len(scores[baseline]) != len(first) or second.isna().any():
        raise InputError(
            f"{method!r} and {baseline!r} were asked different questions of {group['task'].iat[0]}"
        )
    given, wanted = first.to_numpy(np.float64), second.to_numpy(np.float64)
    difference = given - wanted
    low, high = _bootstrap(difference, confidence, seed)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return {
        "metric": chosen.name,
        "n": len(difference),
        "score": float(given.mean()),
        "baseline_score": float(wanted.mean()),
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "wins": wins,
        "losses": losses,
        "p_value": _mcnemar(wins, losses) if chosen.binary else _permutation(difference, seed),
        "test": "mcnemar" if chosen.binary else "permutation",
    }


def _one_metric(group: pd.DataFrame) -> Metric:
    names = group["metric"].unique()
    if len(names) != 1:
        raise InputError(f"one group has the metrics {sorted(names)}; group by task as well")
    return metric(str(names[0]))


def _scores(group: pd.DataFrame, chosen: Metric) -> list[float]:
    """Stored scores; those of a corpus metric are computed with the rows as the corpus."""
    return group["score"].tolist() if chosen.per_item else _asked(group, chosen)


def _asked(group: pd.DataFrame, chosen: Metric) -> list[float]:
    return chosen.scores(group["answer"].tolist(), group["reference"].tolist())


def _mcnemar(wins: int, losses: int) -> float:
    """Exact McNemar test: are wins and losses equally likely?"""
    from scipy import stats

    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _permutation(difference: Scores, seed: int) -> float:
    """Paired permutation test of a mean difference of zero: signs are exchangeable."""
    from scipy import stats

    if len(difference) < 2 or not difference.any():
        return 1.0
    test = stats.permutation_test(
        (difference, np.zeros_like(difference)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _bootstrap(values: Scores, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean."""
    from scipy import stats

    if len(values) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=200,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
