"""Scores of benchmarks from stored rows: several of one run, each by its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analysis.scoring import captions
from analysis.scoring.aggregates import Formula
from analysis.scoring.estimate import LEVEL, Estimate
from analysis.scoring.formulas import FORMULAS, SUMS, formula
from analysis.scoring.intervals import PICTURE
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PREFIX: Final = "lmms/"
"""How the metric of such rows begins."""


@dataclass(frozen=True)
class Part:
    """The rows of a set that a score is computed from.

    Attributes:
        items: Their questions.
        outcomes: What the harness made of the answers.
        pictures: What the questions are about.
    """

    items: tuple[int, ...]
    outcomes: Sequence[Any]
    pictures: tuple[str, ...]


def parts_of(rows: pd.DataFrame) -> dict[str, Part]:
    """The rows of each score that the harness has of a set, and of those of several together.

    Args:
        rows: Of one benchmark and method, as the store gives them.
    """
    parts = {}
    split: dict[tuple[int, ...], Sequence[Any]] = {}
    for name, part in _raw(rows).items():
        outcomes = part.outcomes
        counted = name not in FORMULAS or isinstance(outcomes[0], float)
        if captions.is_caption_score(name) and not counted:
            # All scores of the same captions take one call of the tokeniser.
            if part.items not in split:
                split[part.items] = captions.tokenised(outcomes)
            outcomes = tuple(split[part.items])
        parts[name] = Part(part.items, outcomes, part.pictures)
    return parts


def _raw(rows: pd.DataFrame) -> dict[str, Part]:
    """As :func:`parts_of`, captions as they were answered."""
    results: dict[str, list[tuple[int, Any, str]]] = {}
    for item, packed, picture in zip(rows["item"], rows["outcome"], rows[PICTURE], strict=True):
        for names, value in packed.get("results", ()):
            for name in names:
                results.setdefault(name, []).append((int(item), value, str(picture)))
    for name, parts in SUMS.items():
        if all(part in results for part in parts):
            several = [one for part in parts for one in results[part]]
            results[name] = sorted(several, key=lambda one: one[0])
    return {name: Part(*zip(*several, strict=True)) for name, several in results.items()}


def benchmark_scores(rows: pd.DataFrame, level: float = LEVEL) -> dict[str, Estimate]:
    """Every score of a set; those without a formula here are left out.

    Args:
        rows: Of one benchmark and method.
        level: Of the intervals.

    Raises:
        UnsupportedError: Captions can't be tokenised here.
    """
    return {
        name: score.estimate(part.outcomes, part.pictures, level=level)
        for name, part in parts_of(rows).items()
        if (score := formula(name, part.outcomes)) is not None
    }


def benchmark_differences(
    one: pd.DataFrame, other: pd.DataFrame, level: float = LEVEL, *, share: float = 1.0
) -> dict[str, tuple[float, float, Estimate]]:
    """Every score of two methods on the same questions, and the difference.

    Args:
        one: Rows of one method on a benchmark.
        other: Rows of another.
        level: Of the intervals.
        share: Of the other's score that is taken off.

    Raises:
        InputError: They were asked different questions.
        UnsupportedError: Captions can't be tokenised here.
    """
    sides = [parts_of(rows.sort_values("item")) for rows in (one, other)]
    differences: dict[str, tuple[float, float, Estimate]] = {}
    for name, part in sides[0].items():
        against, score = sides[1].get(name), formula(name, part.outcomes)
        if against is None or against.items != part.items:
            raise InputError(f"{name}: the two methods were asked different questions")
        if score is not None:
            differences[name] = _difference(score, part, against, level, share)
    return differences


def _difference(
    score: Formula, part: Part, against: Part, level: float, share: float
) -> tuple[float, float, Estimate]:
    sides = part.outcomes, against.outcomes
    lead = score.difference(*sides, part.pictures, share=share, level=level)
    values = [score.value(one.outcomes, one.pictures) for one in (part, against)]
    return values[0], values[1], lead


def unscored(rows: pd.DataFrame) -> list[str]:
    """Scores that the harness names and that have no formula here."""
    return [name for name, part in _raw(rows).items() if formula(name, part.outcomes) is None]
