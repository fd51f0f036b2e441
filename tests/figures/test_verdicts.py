"""Rules that turn intervals into verdicts."""

from __future__ import annotations

from analysis.scoring.intervals import mean
from figures.verdicts import (
    Outcome,
    above,
    alike,
    all_of,
    at_least,
    at_most,
    untestable,
    verdict,
    worst_of,
)
from tests.figures.frames import scored


def test_interval_decides() -> None:
    found = mean(scored("a", 0.5, questions=100))
    assert above(found, 0.2, "x").outcome is Outcome.HOLDS
    assert above(found, 0.8, "x").outcome is Outcome.FAILS
    assert above(found, 0.5, "x").outcome is Outcome.UNTESTABLE
    assert at_least(found, 0.2, "x").outcome is Outcome.HOLDS
    assert at_most(found, 0.2, "x").outcome is Outcome.FAILS
    assert "interval includes 0.5" in at_least(found, 0.5, "x").reason


def test_few_questions_decide_nothing() -> None:
    found = mean(scored("a", 1.0, questions=9))
    assert above(found, 0.1, "x").outcome is Outcome.UNTESTABLE


def test_alike_needs_narrow_intervals() -> None:
    one = scored("a", 0.5, questions=100)
    assert alike(one, one, "x").outcome is Outcome.HOLDS
    assert alike(one, scored("b", 0.9, questions=100), "x").outcome is Outcome.FAILS


def test_parts_of_a_claim() -> None:
    good, bad, gap = verdict(True, "good"), verdict(False, "bad"), untestable("gap")
    assert all_of([good, good]).outcome is Outcome.HOLDS
    assert all_of([good, gap]).outcome is Outcome.UNTESTABLE
    assert all_of([good, gap, bad]).outcome is Outcome.FAILS
    assert all_of([]).outcome is Outcome.UNTESTABLE
    assert worst_of([good, bad, bad]).reason == "2 of 3 comparisons: bad"
