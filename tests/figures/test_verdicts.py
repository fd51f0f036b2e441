"""Rules that turn intervals into verdicts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.scoring.estimate import Estimate, Student, unsure
from analysis.scoring.intervals import difference, mean
from analysis.scoring.multiplicity import holm
from figures.compound import all_of, any_of, worst_of
from figures.power import ENDLESS, in_words
from figures.verdicts import (
    FEWEST_QUESTIONS,
    Outcome,
    Verdict,
    above,
    alike,
    at_least,
    at_most,
    better,
    collapses,
    correlated,
    differs,
    equivalent,
    gains,
    keeps,
    not_beaten,
    undecided,
    untestable,
    verdict,
)
from tests.figures.score_frames import scored


def test_interval_decides() -> None:
    half = mean(scored("a", 0.5, questions=100))
    assert above(half, 0.2, "x").outcome is Outcome.HOLDS
    assert above(half, 0.8, "x").outcome is Outcome.FAILS
    assert above(half, 0.5, "x").outcome is Outcome.UNDECIDED
    assert at_least(half, 0.2, "x").outcome is Outcome.HOLDS
    assert at_most(half, 0.2, "x").outcome is Outcome.FAILS
    assert "interval includes 0.5" in at_least(half, 0.5, "x").reason


@pytest.mark.parametrize(
    ("centre", "outcome"),
    [
        (0.9, Outcome.HOLDS),
        (0.4, Outcome.UNDECIDED),
        (-0.4, Outcome.FAILS),
        (0.0, Outcome.UNDECIDED),
    ],
)
def test_a_low_correlation_is_no_sign_of_different_orders(centre: float, outcome: Outcome) -> None:
    around = Estimate(centre, 20, "t", Student(centre, 0.03, 19))
    assert correlated(around, 0.8, "x").outcome is outcome


def test_few_questions_decide_nothing() -> None:
    all_right = mean(scored("a", 1.0, questions=9))
    few = above(all_right, 0.1, "x")
    assert few.outcome is Outcome.UNDECIDED and few.p == 1 and "at least 10" in few.reason
    assert above(mean(scored("a", 1.0, questions=10)), 0.1, "x").outcome is Outcome.HOLDS


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
    unsure = undecided("rounds differ")
    assert unsure.outcome is Outcome.UNDECIDED and unsure.p is None
    assert all_of([good, unsure]).outcome is Outcome.UNDECIDED
    assert all_of([unsure, gap]).outcome is Outcome.UNTESTABLE
    assert worst_of([good, bad, bad]).reason == "1 of 2 comparisons: bad"


def around(value: float, error: float) -> Estimate:
    return Estimate(value, 100, "normal", Student(value, error, np.inf))


def part(p_holds: float, p_fails: float, outcome: Outcome = Outcome.UNDECIDED) -> Verdict:
    return Verdict(outcome, f"{p_holds}, {p_fails}", p_holds, p_fails)


def test_the_word_is_that_of_two_tests_at_two_and_a_half_percent() -> None:
    reach = 1.96 * 0.01
    assert above(around(reach + 1e-4, 0.01), 0.0, "x").outcome is Outcome.HOLDS
    assert above(around(reach - 1e-4, 0.01), 0.0, "x").outcome is Outcome.UNDECIDED
    assert above(around(-reach - 1e-4, 0.01), 0.0, "x").outcome is Outcome.FAILS
    judgement = above(around(0.02, 0.01), 0.0, "x")
    assert judgement.p_holds == pytest.approx(0.02275, abs=1e-4)
    assert judgement.p == pytest.approx(2 * 0.02275, abs=1e-4)
    assert verdict(True, "x").p is None and untestable("x").p is None


def test_what_is_undecided_says_how_many_questions_would_decide_it() -> None:
    lead = above(around(0.01, 0.01), 0.0, "x")
    assert lead.needed == math.ceil(100 * (1.959964 + 1.281552) ** 2) == 1051
    assert "; about 1,100 questions would decide it" in lead.reason
    # So many give the lead nine chances in ten to be significant.
    assert stats.norm.sf(1.959964 - math.sqrt(lead.needed / 100)) == pytest.approx(0.9, abs=1e-3)
    # The nearer word counts: below the margin by 0.04, above 0 by 0.01.
    assert gains(around(0.01, 0.03), "x").needed == math.ceil(100 * (3.241516 * 3 / 4) ** 2)
    edge = above(around(0.0, 0.01), 0.0, "x")
    assert edge.needed == math.inf and "no number of questions" in edge.reason
    assert above(around(0.02, 0.01), 0.0, "x").needed is None
    assert in_words(ENDLESS).startswith("about 1,000,000 questions")
    assert in_words(ENDLESS + 1).startswith("so near the edge")
    flat = above(unsure(0.5, 40), 0.4, "x")
    assert flat.outcome is Outcome.UNDECIDED and flat.p == 1 and flat.needed is None
    assert "vary too little" in flat.reason and "questions would" not in flat.reason
    few = Estimate(0.5, 9, "t", Student(0.5, 0.1, 8.0))
    assert above(few, 0.4, "x").needed == FEWEST_QUESTIONS


def test_of_several_undecided_parts_the_one_that_takes_most_is_named() -> None:
    parts = [above(around(value, 0.01), 0.0, f"{value}") for value in (0.015, 0.005, 0.01)]
    assert worst_of(parts).reason == f"3 of 3 comparisons: {parts[1].reason}"
    sure = above(around(0.1, 0.01), 0.0, "x")
    for whole in (worst_of(parts), all_of([*parts, sure]), any_of(parts)):
        assert whole.outcome is Outcome.UNDECIDED and whole.needed == parts[1].needed
    assert any_of([*parts, sure]).needed is None
    flat = above(unsure(0.5, 40), 0.4, "flat")
    assert worst_of([*parts, flat]).reason == f"4 of 4 comparisons: {flat.reason}"
    assert all_of([*parts, flat]).needed is None


def test_a_gain_fails_below_the_margin_and_may_hold_by_less() -> None:
    assert gains(around(0.0, 0.02), "x").outcome is Outcome.FAILS
    assert gains(around(0.0, 0.026), "x").outcome is Outcome.UNDECIDED
    small, large = gains(around(0.02, 0.005), "x"), gains(around(0.2, 0.01), "x")
    assert small.outcome is large.outcome is Outcome.HOLDS
    assert "by less than 0.05" in small.reason and "by less" not in large.reason


def test_equivalence_is_two_one_sided_tests_inside_the_margin() -> None:
    assert equivalent(around(0.03, 0.01), "x").outcome is Outcome.HOLDS
    for value in (0.031, -0.031):
        assert equivalent(around(value, 0.01), "x").outcome is Outcome.UNDECIDED
    for value in (0.071, -0.071):
        assert equivalent(around(value, 0.01), "x").outcome is Outcome.FAILS
        assert differs(around(value, 0.01), 0.05, "x").outcome is Outcome.UNDECIDED
        assert differs(around(1.05 * value, 0.01), 0.05, "x").outcome is Outcome.HOLDS
    assert differs(around(0.03, 0.01), 0.05, "x").outcome is Outcome.FAILS


def test_what_is_best_is_not_beaten_by_little() -> None:
    assert not_beaten(around(0.0, 0.02), "x").outcome is Outcome.HOLDS
    assert not_beaten(around(0.0, 0.03), "x").outcome is Outcome.UNDECIDED
    assert not_beaten(around(0.07, 0.01), "x").outcome is Outcome.FAILS
    assert not_beaten(around(0.019, 0.001), "x").p_fails == 1
    assert not_beaten(around(0.02, 0.001), "x").p_fails == pytest.approx(0, abs=1e-6)


def test_shares_of_the_full_cache() -> None:
    whole = scored("whole", 1.0)
    assert keeps(scored("a", 0.98), whole, 0.9, "x").outcome is Outcome.HOLDS
    assert keeps(scored("a", 0.8), whole, 0.9, "x").outcome is Outcome.FAILS
    assert collapses(scored("a", 0.3), whole, 0.5, "x").outcome is Outcome.HOLDS
    assert collapses(scored("a", 0.8), whole, 0.5, "x").outcome is Outcome.FAILS
    assert keeps(whole, scored("b", 0.0), 0.9, "x").outcome is Outcome.UNTESTABLE


def test_tasks_at_floor_or_ceiling_tell_nothing() -> None:
    whole = pd.concat([scored("whole", 1.0, task=task) for task in "ab"])

    def cell(a: float, b: float) -> pd.DataFrame:
        return pd.concat([scored("x", a, task="a"), scored("x", b, task="b")])

    low = better(cell(0.05, 0.0), cell(0.0, 0.05), "x", whole=whole)
    assert low.outcome is Outcome.UNTESTABLE and "floor (below 10 %)" in low.reason
    assert "ceiling" not in low.reason
    both = better(cell(0.05, 0.95), cell(0.0, 1.0), "x", whole=whole)
    assert "floor (below 10 %) or ceiling (above 90 %)" in both.reason
    # What one setting answers and the other does not, is told.
    assert better(cell(1.0, 1.0), cell(0.0, 1.0), "x", whole=whole).outcome is Outcome.HOLDS
    counted = better(cell(0.8, 1.0), cell(0.5, 1.0), "x", whole=whole)
    assert counted.outcome is Outcome.HOLDS and "120 questions" in counted.reason
    every = alike(cell(0.95, 1.0), cell(0.95, 1.0), "x")
    assert every.outcome is Outcome.HOLDS and "240 questions" in every.reason


def test_a_part_fails_a_claim_at_its_level_among_all_parts() -> None:
    fails = part(1.0, 0.02, Outcome.FAILS)
    sure = part(1.0, 0.001, Outcome.FAILS)
    holds = [part(0.001, 0.9 + k / 100, Outcome.HOLDS) for k in range(3)]
    assert all_of([fails]).outcome is Outcome.FAILS
    assert all_of([fails, holds[0]]).outcome is Outcome.UNDECIDED
    assert all_of([sure, *holds]).outcome is Outcome.FAILS
    assert all_of([sure, *holds]).p_fails == pytest.approx(0.004)
    # Equal parts are one.
    assert all_of([fails, fails]).outcome is Outcome.FAILS
    assert all_of(holds).p_holds == 0.001
    assert all_of([*holds, part(0.2, 0.8)]).p_holds == 0.2
    assert all_of([verdict(False, "x"), *holds]).outcome is Outcome.FAILS
    assert all_of([untestable("x"), *holds]).p is None
    assert all_of([undecided("x"), *holds]).p is None
    assert all_of([verdict(True, "x"), *holds]).p_holds == 0.001
    assert worst_of([fails, *holds]).reason.startswith("no one of 4 comparisons is sure")


def test_one_part_is_enough_for_a_claim_of_any() -> None:
    sure, open_ = part(0.001, 1.0, Outcome.HOLDS), part(0.3, 0.4)
    assert any_of([sure, open_]).outcome is Outcome.HOLDS
    assert any_of([sure, open_]).p_holds == pytest.approx(0.002)
    assert any_of([part(0.02, 1.0, Outcome.HOLDS), open_]).outcome is Outcome.UNDECIDED
    fails = [part(1.0, p, Outcome.FAILS) for p in (0.001, 0.02)]
    assert any_of(fails).outcome is Outcome.FAILS and any_of(fails).p_fails == 0.02


def test_holm_is_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.3, 0.9]) == pytest.approx([0.6, 0.9])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []


def test_graded_scores_that_hardly_vary_leave_room() -> None:
    same = pd.concat([scored("a", 1.0, questions=24).assign(score=0.5)])
    nothing = difference(same, same)
    assert nothing.low < -0.1 and nothing.high > 0.1
    changed = same.assign(score=np.where(np.arange(24) < 6, np.linspace(0.3, 0.45, 24), 0.5))
    assert difference(same, changed).method == "t"
    five = same.assign(score=np.where(np.arange(24) < 5, np.linspace(0.3, 0.45, 24), 0.5))
    assert difference(same, five).method == "normal"
    assert difference(same.assign(value=0.5), same.assign(value=0.5), "value").high == 0
