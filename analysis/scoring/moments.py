"""The mean of one task's scores, with what an interval of it is made of."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from analysis.scoring.estimate import Student

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

UNEVEN: Final = 5
"""Questions from which on skewness is corrected for; of fewer it is hardly known."""


def moments(
    values: Values, ends: tuple[float, float] | None, pictures: Any, pseudo: float
) -> Student:
    """Mean with standard error, degrees of freedom and, of graded scores, skewness.

    Args:
        values: (n,) scores or differences of them.
        ends: What is possible, where pseudo-questions are to be added at both; None for graded
            scores, of which two are needed.
        pictures: (n,) codes from 0 on of what each is about, None where that is another each time.
            Skewness is not corrected for over them.
        pseudo: Questions added at each end.
    """
    count, skewness = len(values), 0.0
    if ends is not None:
        total = count + 2 * pseudo
        centre = (values.sum() + pseudo * sum(ends)) / total
        square = (values**2).sum() + pseudo * sum(end**2 for end in ends)
        variance, freedom = (square / total - centre**2) / total, np.inf
    else:
        centre, variance, freedom = values.mean(), values.var(ddof=1) / count, count - 1.0
        if pictures is None and count >= UNEVEN and variance:
            skewness = _skewness(values)
    if pictures is not None:
        variance, freedom = variance * _inflation(values, pictures), float(pictures.max())
    return Student(float(centre), float(np.sqrt(variance)), freedom, skewness)


def _skewness(values: Values) -> float:
    """Skewness of the mean of these values."""
    from scipy.stats import kstat

    # Centred and scaled, since it sums raw powers.
    standard = (values - values.mean()) / values.std(ddof=1)
    return float(kstat(standard, 3) / np.sqrt(len(values)))


def _inflation(values: Values, pictures: Any) -> float:
    """Variance over pictures by that over questions, at least 1."""
    left = values - values.mean()
    naive = (left**2).sum() * len(values) / (len(values) - 1)
    sums = np.bincount(pictures, left)
    apart = (sums**2).sum() * len(sums) / (len(sums) - 1)
    return max(1.0, float(apart / naive)) if naive else 1.0
