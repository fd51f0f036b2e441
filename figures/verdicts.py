"""Verdicts on a paper's claims: holds, does not hold, or not testable here, with the numbers.

A claim holds when the 95 % interval lies on its side of the threshold, does not hold when the
interval lies on the other side, and is undecided in between. Undecided counts as not testable
here; the reason says so and gives the interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from analysis.scoring.estimate import Estimate
from analysis.scoring.intervals import difference

if TYPE_CHECKING:
    import pandas as pd

FEWEST_QUESTIONS: Final = 10
"""Below this many questions an interval says nothing."""

MARGIN: Final = 0.05
"""Scores within five points of each other count as practically equal."""


class Outcome(StrEnum):
    """What can be said about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Verdict:
    """An outcome, the reason in words, and the numbers behind it."""

    outcome: Outcome
    reason: str


def verdict(condition: bool, reason: str) -> Verdict:
    """A verdict on something that needs no statistics."""
    return Verdict(Outcome.HOLDS if condition else Outcome.FAILS, reason)


def untestable(reason: str) -> Verdict:
    """No verdict is possible, because of ``reason``."""
    return Verdict(Outcome.UNTESTABLE, reason)


def above(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate lies above a threshold; an interval that touches it is undecided."""
    return _decided(
        estimate,
        what,
        holds=estimate.low > threshold,
        fails=estimate.high < threshold,
        gap=f"the interval includes {threshold:g}",
    )


def at_least(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate reaches a threshold; an interval that begins on it does."""
    return _decided(
        estimate,
        what,
        holds=estimate.low >= threshold,
        fails=estimate.high < threshold,
        gap=f"the interval includes {threshold:g}",
    )


def at_most(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate does not exceed a threshold; an interval that ends on it doesn't."""
    return _decided(
        estimate,
        what,
        holds=estimate.high <= threshold,
        fails=estimate.low > threshold,
        gap=f"the interval includes {threshold:g}",
    )


def better(one: pd.DataFrame, other: pd.DataFrame, what: str) -> Verdict:
    """Whether ``one`` scores higher than ``other`` on the questions that both answered."""
    return above(difference(one, other), 0.0, f"{what}, difference of scores")


def alike(one: pd.DataFrame, other: pd.DataFrame, what: str) -> Verdict:
    """Whether the scores of two variants differ by less than :data:`MARGIN`.

    An interval that ends on the margin is undecided.
    """
    estimate = difference(one, other)
    return _decided(
        estimate,
        f"{what}, difference of scores",
        holds=estimate.low > -MARGIN and estimate.high < MARGIN,
        fails=estimate.low > MARGIN or estimate.high < -MARGIN,
        gap=f"the interval reaches beyond ±{MARGIN:g}",
    )


def keeps(part: pd.DataFrame, whole: pd.DataFrame, least: float, what: str) -> Verdict:
    """Whether ``part`` scores at least the share ``least`` of what ``whole`` scores."""
    if len(whole) and whole["score"].mean() == 0:
        return untestable(f"{what}: the full cache scores 0 already")
    lead = difference(part, whole, share=least)
    return at_least(lead, 0.0, f"{what}, score minus {least:g} of the full cache's")


def collapses(part: pd.DataFrame, whole: pd.DataFrame, most: float, what: str) -> Verdict:
    """Whether ``part`` scores at most the share ``most`` of what ``whole`` scores."""
    if len(whole) and whole["score"].mean() == 0:
        return untestable(f"{what}: the full cache scores 0 already")
    lead = difference(part, whole, share=most)
    return at_most(lead, 0.0, f"{what}, score minus {most:g} of the full cache's")


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for a claim of several parts: any failure fails it, any gap leaves it open."""
    parts = list(verdicts)
    if not parts:
        return untestable("nothing was measured that this claim is about")
    if len(parts) == 1:
        return parts[0]
    order = (Outcome.FAILS, Outcome.UNTESTABLE, Outcome.HOLDS)
    worst = min((part.outcome for part in parts), key=order.index)
    if all(part.outcome is worst for part in parts):
        return Verdict(worst, "; ".join(part.reason for part in parts))
    return Verdict(worst, "; ".join(f"{p.reason} ({p.outcome.value})" for p in parts))


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """As :func:`all_of`, but of many like parts the reason names the deciding ones only."""
    parts = list(verdicts)
    whole = all_of(parts)
    deciding = [part.reason for part in parts if part.outcome is whole.outcome]
    if whole.outcome is Outcome.HOLDS or not deciding:
        return Verdict(
            whole.outcome, f"all {len(parts)} comparisons, for example {parts[0].reason}"
        )
    return Verdict(whole.outcome, f"{len(deciding)} of {len(parts)} comparisons: {deciding[0]}")


def _decided(estimate: Estimate, what: str, *, holds: bool, fails: bool, gap: str) -> Verdict:
    numbers = f"{what}: {estimate:.3f}, {estimate.n} questions"
    if estimate.n < FEWEST_QUESTIONS:
        return untestable(f"{numbers}; at least {FEWEST_QUESTIONS} are needed")
    if holds or fails:
        return verdict(holds, numbers)
    return untestable(f"undecided, {gap}: {numbers}")
