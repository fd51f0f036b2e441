"""Scores of whole sets as formulas over sums, with intervals over what is independent.

A mean is a sum of scores by a count; F1 is made of counts, MME of pair scores by category, BLEU of
n-gram counts. So each independent *unit* (a picture with all questions about it, a pair) is reduced
to a few numbers, and the formula is applied to their sums. The same code serves all scores, and
differences of two methods, whose units are left out together.

Intervals are Student's t around the score with the jackknife's error over units within strata
(Efron and Stein, 1981), freedom after Satterthwaite. The percentile bootstrap over the same units
held the truth less often at 20 and 50 units. Intervals are given from :data:`FEWEST` units in each
stratum on; how often they hold the truth is simulated in :mod:`analysis.simulation.scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.estimate import LEVEL, Estimate, Student
from lightkv.errors import InputError

Array = NDArray[np.float64]

FEWEST: Final = 20
"""Units in each stratum from which an interval is given."""

_ROUNDING: Final = 1e-9
"""Share of a score up to which a difference counts as a rounding error."""


def _one(_: Any) -> str:
    return ""


@dataclass(frozen=True)
class Formula:
    """A score that is a formula over sums of numbers of units.

    Attributes:
        name: Of the score.
        columns: From the outcomes of one unit to k numbers.
        combine: From sums (R, S, k) of R sets and S strata to (R,) scores.
        prepare: From all outcomes of a set to what ``columns`` takes, one each: what is made with
            the whole set in view, such as document frequencies, and then kept as it is.
        unit: From an outcome to what it belongs to and is left out with; None for the picture.
        stratum: From an outcome to the part of the set whose units are alike.
        whole_units: How many outcomes each unit has, None for any number.
    """

    name: str
    columns: Callable[[Sequence[Any]], Sequence[float]]
    combine: Callable[[Array], Array]
    prepare: Callable[[Sequence[Any]], Sequence[Any]] = list
    unit: Callable[[Any], str] | None = None
    stratum: Callable[[Any], str] = _one
    whole_units: int | None = None

    def value(self, outcomes: Sequence[Any], pictures: Sequence[str]) -> float:
        """The score of a set without its interval; arguments and errors as of :meth:`estimate`."""
        (sums,) = self._sums([outcomes], pictures)
        return float(self.combine(_whole(sums))[0])

    def estimate(
        self,
        outcomes: Sequence[Any],
        pictures: Sequence[str],
        *,
        level: float = LEVEL,
    ) -> Estimate:
        """The score of a set with its interval.

        Args:
            outcomes: One a question.
            pictures: What each question is about.
            level: Of the interval.

        Raises:
            InputError: There is no outcome, or a unit is not whole.
        """
        sums = self._sums([outcomes], pictures)
        return jackknife(self.combine, sums, len(outcomes), level=level)

    def difference(
        self,
        one: Sequence[Any],
        other: Sequence[Any],
        pictures: Sequence[str],
        *,
        share: float = 1.0,
        level: float = LEVEL,
    ) -> Estimate:
        """Score of ``one`` minus a share of that of ``other``, on the same questions in one order.

        Raises:
            InputError: As :meth:`estimate`, or they are not about the same units.
        """
        sums = self._sums([one, other], pictures)
        return jackknife(self.combine, sums, len(one), share=share, level=level)

    def place(self, outcome: Any, picture: str = "") -> tuple[str, str]:
        """Stratum and unit of an outcome."""
        return self.stratum(outcome), picture if self.unit is None else self.unit(outcome)

    def _sums(self, sides: Sequence[Sequence[Any]], pictures: Sequence[str]) -> list[list[Array]]:
        """For each side and stratum the numbers (units, k) of its units, sides in one order."""
        placed = [self._units(side, pictures) for side in sides]
        if any(list(side) != list(placed[0]) for side in placed):
            raise InputError(f"{self.name}: the two methods were asked about different things")
        strata = dict.fromkeys(stratum for stratum, _ in placed[0])
        return [
            [
                np.array(
                    [self.columns(unit) for (s, _), unit in side.items() if s == stratum],
                    dtype=np.float64,
                )
                for stratum in strata
            ]
            for side in placed
        ]

    def _units(
        self, outcomes: Sequence[Any], pictures: Sequence[str]
    ) -> dict[tuple[str, str], list[Any]]:
        if not outcomes:
            raise InputError(f"{self.name} needs at least one answer")
        units: dict[tuple[str, str], list[Any]] = {}
        prepared = self.prepare(outcomes)
        for outcome, ready, picture in zip(outcomes, prepared, pictures, strict=True):
            units.setdefault(self.place(outcome, picture), []).append(ready)
        for (_, name), unit in units.items():
            if self.whole_units not in (None, len(unit)):
                raise InputError(
                    f"{self.name} takes {self.whole_units} answers to each picture, {name!r} has "
                    f"{len(unit)}: ask whole pictures"
                )
        return units


def jackknife(
    combine: Callable[[Array], Array],
    sides: Sequence[Sequence[Array]],
    n: int,
    *,
    share: float = 1.0,
    level: float = LEVEL,
) -> Estimate:
    """A score, or the difference of two, with its interval from leaving out one unit after another.

    Args:
        combine: See :class:`Formula`.
        sides: One method or two; of each the numbers (units, k) of every stratum.
        n: Questions behind them.
        share: Of the second method's score that is taken off.
        level: Of the interval.
    """
    wholes = [_whole(side) for side in sides]
    value = float(_joined([combine(whole) for whole in wholes], share)[0])
    counts = np.array([len(stratum) for stratum in sides[0]])
    if counts.min() < FEWEST:
        return Estimate(value, n, "none", None, level)
    variances = np.zeros(len(counts))
    for place, count in enumerate(counts):
        left: list[Array] = []
        for whole, side in zip(wholes, sides, strict=True):
            sums = whole.repeat(count, axis=0)
            sums[:, place] -= side[place]
            left.append(combine(sums))
        variances[place] = (count - 1) ** 2 / count * _joined(left, share).var(ddof=1)
    variance = float(variances.sum())
    if variance**0.5 <= _ROUNDING * max(abs(float(combine(whole)[0])) for whole in wholes):
        # Nothing varies: the set is too easy, or too hard, to tell an error.
        return Estimate(value, n, "none", None, level)
    freedom = variance**2 / float((variances**2 / (counts - 1)).sum())
    return Estimate(value, n, "jackknife", Student(value, variance**0.5, freedom), level)


def _joined(scores: Sequence[Array], share: float) -> Array:
    """Scores of one method, or those of the first minus a share of those of the second."""
    return scores[0] if len(scores) == 1 else scores[0] - share * scores[1]


def _whole(strata: Sequence[Array]) -> Array:
    """(1, S, k) sums of the set as it is, from (units, k) of each stratum."""
    return np.stack([stratum.sum(0) for stratum in strata])[None]


def ratio(above: Array, below: Array) -> Array:
    """Elementwise quotient, 0 where ``below`` is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def over_strata(sums: Array) -> Array:
    """Sums (R, S, k) to (R, k)."""
    total: Array = sums.sum(axis=1)
    return total
