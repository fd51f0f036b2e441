"""Verdicts on a paper's claims: holds, does not hold, undecided, not testable here.

Every claim that is judged from questions has two one-sided tests at 2.5 %: one against "it does
not hold", one against "it holds". The verdict is the one that is significant, *undecided* if
neither is. *Not testable here* is what can't be asked of this model, these tasks or this machine,
however many questions there were.

``lightkv simulate verdicts`` measures how often each rule errs at the numbers of questions used.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from analysis.scoring import leads
from analysis.scoring.estimate import Estimate
from figures.power import in_words, questions_needed
from figures.responding import responding

if TYPE_CHECKING:
    import pandas as pd

ALPHA: Final = 0.025
"""Level of a one-sided test: a claim is judged at 5 %."""

FEWEST_QUESTIONS: Final = 10
"""Below this many questions an interval says nothing."""

MARGIN: Final = 0.05
"""Scores within five points of each other count as practically equal."""

NOTED: Final = 0.02
"""Leads of less than two points don't unseat what is best."""


class Outcome(StrEnum):
    """What can be said about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Verdict:
    """An outcome, the reason in words, and the tests behind it.

    Attributes:
        outcome: What can be said.
        reason: Why, with the numbers.
        p_holds: P-value against a truth in which the claim does not hold; None where the verdict
            needs no statistics.
        p_fails: P-value against a truth in which it holds.
        needed: Questions that would decide what is undecided; None where that is not known.
    """

    outcome: Outcome
    reason: str
    p_holds: float | None = None
    p_fails: float | None = None
    needed: float | None = None

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the claim, None where the verdict needs no statistics."""
        if self.p_holds is None or self.p_fails is None:
            return None
        return min(1.0, 2 * min(self.p_holds, self.p_fails))


def verdict(condition: bool, reason: str) -> Verdict:
    """A verdict on something that needs no statistics."""
    return Verdict(Outcome.HOLDS if condition else Outcome.FAILS, reason)


def untestable(reason: str) -> Verdict:
    """No verdict is possible here, because of ``reason``."""
    return Verdict(Outcome.UNTESTABLE, reason)


def undecided(reason: str) -> Verdict:
    """Measured, but neither word can be said, because of ``reason``; for rules without a test."""
    return Verdict(Outcome.UNDECIDED, reason)


def tested(p_holds: float, p_fails: float, reason: str, gap: str, n: int) -> Verdict:
    """The verdict of two one-sided tests of ``n`` questions; ``gap`` says why it is undecided.

    Where both are significant, which only rules with a margin allow, the claim holds.
    """
    for outcome, p in ((Outcome.HOLDS, p_holds), (Outcome.FAILS, p_fails)):
        if p <= ALPHA:
            return Verdict(outcome, reason, p_holds, p_fails)
    needed = questions_needed(n, min(p_holds, p_fails))
    gap = f"{gap}: {reason}; {in_words(needed)}"
    return Verdict(Outcome.UNDECIDED, gap, p_holds, p_fails, needed)


# ------------------------------------------------------------------ of an estimate


def above(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate lies above a threshold."""
    gap = f"the interval includes {threshold:g}"
    return _tested(estimate, what, estimate.above(threshold), estimate.below(threshold), gap)


def correlated(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether a rank correlation lies above a threshold, from 0 on; it fails below 0.

    Noise alone brings it nearer to 0, so one that is merely low says nothing.
    """
    gap = f"it lies neither above {threshold:g} nor below 0"
    return _tested(estimate, what, estimate.above(threshold), estimate.below(0.0), gap)


def at_least(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate reaches a threshold: as :func:`above`."""
    return above(estimate, threshold, what)


def at_most(estimate: Estimate, threshold: float, what: str) -> Verdict:
    """Whether an estimate does not exceed a threshold."""
    gap = f"the interval includes {threshold:g}"
    return _tested(estimate, what, estimate.below(threshold), estimate.above(threshold), gap)


def gains(estimate: Estimate, what: str) -> Verdict:
    """Whether a difference is a gain: holds above 0, does not hold below :data:`MARGIN`.

    A gain that is sure but surely below the margin holds, and the reason says so.
    """
    gain = _tested(
        estimate,
        what,
        estimate.above(0.0),
        estimate.below(MARGIN),
        f"the interval includes 0 and {MARGIN:g}",
    )
    if gain.outcome is Outcome.HOLDS and estimate.below(MARGIN) <= ALPHA:
        reason = f"{gain.reason}, by less than {MARGIN:g}"
        return Verdict(gain.outcome, reason, gain.p_holds, gain.p_fails)
    return gain


def not_beaten(lead: Estimate, what: str) -> Verdict:
    """Whether another's lead is below :data:`MARGIN`; it fails above 0 from :data:`NOTED` on."""
    ahead = lead.above(0.0) if lead.value >= NOTED else 1.0
    return _tested(lead, what, lead.below(MARGIN), ahead, f"the interval includes {MARGIN:g}")


def equivalent(estimate: Estimate, what: str) -> Verdict:
    """Whether a difference lies within ±:data:`MARGIN`: two one-sided tests (Schuirmann, 1987)."""
    sides = estimate.above(-MARGIN), estimate.below(MARGIN)
    beyond = estimate.below(-MARGIN), estimate.above(MARGIN)
    gap = f"the interval reaches beyond ±{MARGIN:g}"
    return _tested(estimate, what, max(sides), min(beyond), gap)


def differs(estimate: Estimate, margin: float, what: str) -> Verdict:
    """Whether a difference lies beyond ±``margin`` on either side."""
    beyond = min(1.0, 2 * min(estimate.above(margin), estimate.below(-margin)))
    within = max(estimate.below(margin), estimate.above(-margin))
    gap = f"the interval includes {margin:.3g} or {-margin:.3g}"
    return _tested(estimate, what, beyond, within, gap)


# ------------------------------------------------------------------ of scores


def better(
    one: pd.DataFrame, other: pd.DataFrame, what: str, *, whole: pd.DataFrame | None = None
) -> Verdict:
    """Whether ``one`` scores higher than ``other`` on the questions that both answered.

    As :func:`gains`. With the full cache's rows ``whole``, only tasks count that tell settings
    apart (:func:`responding`). On benchmarks a difference is one of shares of the full cache's
    score (:mod:`analysis.scoring.leads`).
    """
    cells, gap = responding([one, other], whole)
    if gap:
        return untestable(f"{what}: {gap}")
    return gains(leads.lead(cells[0], cells[1], whole), f"{what}, difference of scores")


def alike(
    one: pd.DataFrame, other: pd.DataFrame, what: str, *, whole: pd.DataFrame | None = None
) -> Verdict:
    """Whether the scores of two variants differ by less than :data:`MARGIN`.

    As :func:`equivalent`, over the tasks that :func:`better` counts.
    """
    cells, gap = responding([one, other], whole)
    if gap:
        return untestable(f"{what}: {gap}")
    return equivalent(leads.lead(cells[0], cells[1], whole), f"{what}, difference of scores")


def keeps(part: pd.DataFrame, whole: pd.DataFrame, least: float, what: str) -> Verdict:
    """Whether ``part`` scores at least the share ``least`` of what ``whole`` scores."""
    if len(whole) and not any(leads.scores_of(whole).values()):
        return untestable(f"{what}: the full cache scores 0 already")
    lead = leads.lead(part, whole, whole, share=least)
    return at_least(lead, 0.0, f"{what}, score minus {least:g} of the full cache's")


def collapses(part: pd.DataFrame, whole: pd.DataFrame, most: float, what: str) -> Verdict:
    """Whether ``part`` scores at most the share ``most`` of what ``whole`` scores."""
    if len(whole) and not any(leads.scores_of(whole).values()):
        return untestable(f"{what}: the full cache scores 0 already")
    lead = leads.lead(part, whole, whole, share=most)
    return at_most(lead, 0.0, f"{what}, score minus {most:g} of the full cache's")


def _tested(estimate: Estimate, what: str, p_holds: float, p_fails: float, gap: str) -> Verdict:
    numbers = f"{what}: {estimate:.3f}, {estimate.n} questions"
    if estimate.n < FEWEST_QUESTIONS:
        few = f"{numbers}; at least {FEWEST_QUESTIONS} are needed"
        return Verdict(Outcome.UNDECIDED, few, 1.0, 1.0, FEWEST_QUESTIONS)
    if estimate.pivot is None:
        flat = f"{numbers}; answers vary too little, or in too few units, to tell its error"
        return Verdict(Outcome.UNDECIDED, flat, 1.0, 1.0)
    return tested(p_holds, p_fails, numbers, gap, estimate.n)
