"""A number with its interval, and the distributions that intervals are taken from.

:mod:`analysis.scoring.intervals` says which is taken when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

LEVEL: Final = 0.95


class Pivot(Protocol):
    """The distribution behind an interval: bounds at any level, and one-sided p-values."""

    @property
    def error(self) -> float:
        """Standard error on the scale of the value."""
        ...

    def bounds(self, level: float) -> tuple[float, float]:
        """The interval that holds the truth with probability ``level``."""
        ...

    def above(self, threshold: float) -> float:
        """P-value against a truth of at most ``threshold``."""
        ...

    def below(self, threshold: float) -> float:
        """P-value against a truth of at least ``threshold``."""
        ...


def quantile(level: float, freedom: float) -> float:
    """How many standard errors an interval of Student's t reaches to either side."""
    from scipy.special import ndtri, stdtrit

    share = (1 + level) / 2
    return float(ndtri(share) if np.isinf(freedom) else stdtrit(freedom, share))


def tail(lead: float, freedom: float) -> float:
    """P(T >= lead) of Student's t."""
    from scipy.special import ndtr, stdtr

    return float(ndtr(-lead) if np.isinf(freedom) else stdtr(freedom, -lead))


@dataclass(frozen=True)
class Student:
    """Student's t around ``centre``, normal with infinite degrees of freedom.

    With a ``skewness``, that of the distribution of the centre, its first-order effect is taken
    out by Hall's cubic, which rises everywhere and so has one inverse (Hall, 1992, "On the removal
    of skewness by transformation").
    """

    centre: float
    error: float
    freedom: float
    skewness: float = 0.0

    def bounds(self, level: float) -> tuple[float, float]:
        reach = quantile(level, self.freedom) if self.error else 0
        low, high = self._uncorrected(reach), self._uncorrected(-reach)
        return self.centre - low * self.error, self.centre - high * self.error

    def above(self, threshold: float) -> float:
        return self._tail(threshold, 1)

    def below(self, threshold: float) -> float:
        return self._tail(threshold, -1)

    def _tail(self, threshold: float, side: int) -> float:
        lead = self.centre - threshold
        if not self.error:
            return float(side * lead <= 0)
        return tail(side * self._corrected(lead / self.error), self.freedom)

    def _corrected(self, lead: float) -> float:
        """What has no skewness, of a lead in standard errors."""
        a = self.skewness / 3
        return lead + a * lead**2 + a**2 * lead**3 / 3 + a / 2

    def _uncorrected(self, lead: float) -> float:
        """The lead of which that is so much."""
        a = self.skewness / 3
        if not a:
            return lead
        cubed = 3 * a * (lead - a / 2)
        # Near zero the difference of the root and 1 would lose its digits.
        root = np.expm1(np.log1p(cubed) / 3) if cubed > -0.5 else np.cbrt(1 + cubed) - 1
        return float(root) / a


@dataclass(frozen=True)
class Wilson:
    """The score test of one share: ``right`` of ``count``."""

    right: int
    count: int

    @property
    def error(self) -> float:
        low, high = self.bounds(LEVEL)
        return (high - low) / (2 * quantile(LEVEL, np.inf))

    def bounds(self, level: float) -> tuple[float, float]:
        from scipy import stats

        test = stats.binomtest(self.right, self.count)
        limits = test.proportion_ci(confidence_level=level, method="wilson")
        return float(limits.low), float(limits.high)

    def above(self, threshold: float) -> float:
        return self._tail(threshold, 1)

    def below(self, threshold: float) -> float:
        return self._tail(threshold, -1)

    def _tail(self, threshold: float, side: int) -> float:
        lead = side * (self.right / self.count - threshold)
        error = np.sqrt(max(0.0, threshold * (1 - threshold)) / self.count)
        return tail(lead / error, np.inf) if error else float(lead <= 0)


@dataclass(frozen=True)
class Resampled:
    """What a statistic came to in resampled questions, sorted."""

    draws: tuple[float, ...]

    @property
    def error(self) -> float:
        return float(np.std(self.draws, ddof=1))

    def bounds(self, level: float) -> tuple[float, float]:
        tail = 50 * (1 - level)
        low, high = np.percentile(self.draws, [tail, 100 - tail])
        return float(low), float(high)

    def above(self, threshold: float) -> float:
        return self._share(np.asarray(self.draws) <= threshold)

    def below(self, threshold: float) -> float:
        return self._share(np.asarray(self.draws) >= threshold)

    def _share(self, against: Any) -> float:
        return float((1 + np.sum(against)) / (1 + len(self.draws)))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The number itself, which need not be the centre of the interval.
        n: Questions behind it.
        method: How the interval was made: "wilson", "normal", "t", "bootstrap", "jackknife",
            "exact", or "none" where one question alone does not tell.
        pivot: The distribution behind the interval, None without one.
        level: Of the interval.
    """

    value: float
    n: int
    method: str
    pivot: Pivot | None
    level: float = LEVEL

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound, NaN without an interval."""
        return self.pivot.bounds(self.level) if self.pivot else (float("nan"), float("nan"))

    @property
    def low(self) -> float:
        """Lower bound."""
        return self.bounds[0]

    @property
    def high(self) -> float:
        """Upper bound."""
        return self.bounds[1]

    @property
    def error(self) -> float:
        """Standard error, NaN without an interval."""
        return self.pivot.error if self.pivot else float("nan")

    def above(self, threshold: float) -> float:
        """One-sided p-value against a truth of at most ``threshold``; 1 without an interval."""
        return self.pivot.above(threshold) if self.pivot else 1.0

    def below(self, threshold: float) -> float:
        """One-sided p-value against a truth of at least ``threshold``; 1 without an interval."""
        return self.pivot.below(threshold) if self.pivot else 1.0

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        form = spec or ".2f"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def exactly(value: float, n: int) -> Estimate:
    """A number that has no error."""
    return Estimate(value, n, "exact", Student(value, 0.0, np.inf))


def unsure(value: float, n: int) -> Estimate:
    """A number whose error is not known."""
    return Estimate(value, n, "none", None)
