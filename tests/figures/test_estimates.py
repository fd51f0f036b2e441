"""Estimates: known answers, pairing by question, tasks weighted alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.estimates import difference, mean, share
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
from tests.figures.frames import TASKS, scored


def test_mean_and_interval_of_a_coin() -> None:
    found = mean(scored("a", 0.5, questions=400))
    assert found.value == 0.5
    assert found.questions == 400
    half = 1.96 * np.sqrt(0.25 / 400)
    assert found.low == pytest.approx(0.5 - half, abs=0.01)
    assert found.high == pytest.approx(0.5 + half, abs=0.01)


def test_difference_is_paired_by_question_not_by_row() -> None:
    one = scored("a", 0.5)
    assert difference(one, one.sample(frac=1, random_state=1)).same
    assert difference(one, one).value == 0


def test_only_shared_questions_count() -> None:
    whole, part = scored("a", 0.5, questions=24), scored("b", 0.5, questions=12)
    assert difference(whole, part).questions == 12


def test_tasks_weigh_alike_whatever_their_size() -> None:
    frame = pd.concat([scored("a", 1.0, questions=10), scored("a", 0.0, task=TASKS[1])])
    assert mean(frame).value == 0.5


def test_share_of_nothing_is_no_number() -> None:
    found = share(scored("a", 0.5), scored("b", 0.0))
    assert not np.isfinite(found.value)


def test_no_questions_no_estimate() -> None:
    assert np.isnan(mean(scored("a", 0.5).iloc[:0]).value)


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
    one = scored("a", 0.5, questions=50)
    assert alike(one, one, "x").outcome is Outcome.HOLDS
    assert alike(one, scored("b", 0.9, questions=50), "x").outcome is Outcome.FAILS


def test_parts_of_a_claim() -> None:
    good, bad, gap = verdict(True, "good"), verdict(False, "bad"), untestable("gap")
    assert all_of([good, good]).outcome is Outcome.HOLDS
    assert all_of([good, gap]).outcome is Outcome.UNTESTABLE
    assert all_of([good, gap, bad]).outcome is Outcome.FAILS
    assert all_of([]).outcome is Outcome.UNTESTABLE
    assert worst_of([good, bad, bad]).reason == "2 of 3 comparisons: bad"
