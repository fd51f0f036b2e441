"""Comparisons over several tasks: of our questions, and of scores of whole benchmarks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.scoring.benchmarks import benchmark_differences
from analysis.scoring.estimate import Estimate, Student
from analysis.scoring.intervals import difference
from analysis.scoring.leads import (
    apart_by_score,
    by_score,
    has_scores,
    lead,
    relative_lead,
    scores_of,
    weighted_sum,
)
from lightkv.errors import InputError
from tests.closeness import DOUBLE, assert_close
from tests.figures.benchmark_frames import COUNT, answered
from tests.figures.score_frames import scored

SCORES = {
    "lmms/pope": ["pope_accuracy", "pope_f1_score"],
    "lmms/mme": ["mme_perception_score", "mme_cognition_score"],
    "lmms/coco2017_cap_val_lite": ["coco_CIDEr"],
}


def rows(share: float, *tasks: str, method: str = "m") -> pd.DataFrame:
    return pd.concat([answered(method, f"lmms/{task}", share) for task in tasks])


def apart(share: float, *tasks: str, method: str = "m") -> pd.DataFrame:
    return by_score(rows(share, *tasks, method=method), SCORES)


def gap(name: str, task: str, one: float, other: float) -> tuple[float, float, float]:
    """Value, error and freedom of the difference of a score, from the rows of its benchmark."""
    estimate = benchmark_differences(rows(one, task), rows(other, task))[name][2]
    assert estimate.pivot is not None
    return estimate.value, estimate.error, estimate.pivot.freedom  # type: ignore[attr-defined]


def test_rows_of_a_score_have_its_own_outcomes_only() -> None:
    both = pd.concat([rows(0.9, "mme", "pope"), rows(0.5, "mme", "pope", method="n")])
    told = by_score(both, SCORES)
    assert has_scores(told) and not has_scores(both)
    counts = told.groupby(["task", "metric", "method"]).size()
    assert set(counts["lmms/pope"]) == {COUNT} and len(counts["lmms/pope"]) == 4
    assert set(counts["lmms/mme"]) == {COUNT // 2}, "a question is of one part of MME"
    (names, value) = told[told["metric"] == "lmms/pope_accuracy"]["outcome"].iloc[0]["results"][0]
    assert names == ["pope_accuracy"] and isinstance(value, float), "means are of numbers"
    assert by_score(both, {"lmms/gqa": ["exact_match"]}) is both


def test_scores_are_those_of_the_whole_set() -> None:
    named = scores_of(apart(0.8, "pope", "mme"))
    assert list(named) == [
        *(("lmms/pope", name) for name in SCORES["lmms/pope"]),
        *(("lmms/mme", name) for name in SCORES["lmms/mme"]),
    ]
    # Of 80 questions 64 are right; three of four truths are yes.
    assert_close(named["lmms/pope", "pope_accuracy"], 0.8, DOUBLE)
    assert named["lmms/pope", "pope_f1_score"] > 0.85
    assert named["lmms/mme", "mme_perception_score"] > 100


def test_document_frequencies_are_those_of_all_questions_of_a_setting() -> None:
    """Each setting is prepared by itself: its score is that of the benchmark."""
    settings = [rows(share, "coco2017_cap_val_lite", method=str(share)) for share in (0.9, 0.4)]
    told = by_score(pd.concat(settings), SCORES)
    for setting, share in zip(settings, ("0.9", "0.4"), strict=True):
        ours = scores_of(told[told["method"] == share])
        alone = scores_of(by_score(setting, SCORES))
        assert_close(list(ours.values()), list(alone.values()), DOUBLE)


def test_leads_are_means_of_shares_of_the_full_cache() -> None:
    tasks = ("pope", "mme", "coco2017_cap_val_lite")
    one, other, whole = (apart(share, *tasks) for share in (0.85, 0.5, 0.95))
    ours, theirs, full = scores_of(one), scores_of(other), scores_of(whole)
    expected = np.mean([(ours[name] - theirs[name]) / full[name] for name in full])
    result = relative_lead(one, other, whole)
    assert_close(result.value, expected, DOUBLE)
    assert result.n == 3 * COUNT, "questions of two scores count once"
    assert len(full) == 5
    less = relative_lead(one, other, whole, share=0.5)
    expected = np.mean([(ours[name] - 0.5 * theirs[name]) / full[name] for name in full])
    assert_close(less.value, expected, DOUBLE)


def test_errors_of_scores_of_the_same_answers_are_added() -> None:
    one, other, whole = (apart(share, "pope") for share in (0.85, 0.5, 0.95))
    full = scores_of(whole)
    gaps = [gap(name, "pope", 0.85, 0.5) for name in SCORES["lmms/pope"]]
    weights = [1 / (2 * full["lmms/pope", name]) for name in SCORES["lmms/pope"]]
    result = relative_lead(one, other, whole)
    added = sum(weight * error for weight, (_, error, _) in zip(weights, gaps, strict=True))
    assert_close(result.error, added, DOUBLE)
    assert_close(result.pivot.freedom, min(freedom for *_, freedom in gaps), DOUBLE)  # type: ignore[union-attr]


def test_freedom_of_scores_of_the_same_answers_is_the_least_of_theirs() -> None:
    gaps = [Estimate(0.1, 9, "t", Student(0.1, 0.2, freedom)) for freedom in (np.inf, 8.0)]
    for several in (gaps, gaps[::-1]):
        pivot = weighted_sum([[(1.0, one) for one in several]], 9).pivot
        assert isinstance(pivot, Student)
        assert_close((pivot.error, pivot.freedom), (0.4, 8.0), DOUBLE)


def test_scores_of_other_questions_are_independent() -> None:
    """MME's parts share no picture, and two benchmarks share nothing."""
    one, other, whole = (apart(share, "mme") for share in (0.85, 0.5, 0.95))
    full = scores_of(whole)
    gaps = [gap(name, "mme", 0.85, 0.5) for name in SCORES["lmms/mme"]]
    errors = [
        error / (2 * full["lmms/mme", name])
        for name, (_, error, _) in zip(SCORES["lmms/mme"], gaps, strict=True)
    ]
    result = relative_lead(one, other, whole)
    variance = sum(error**2 for error in errors)
    assert_close(result.error, variance**0.5, DOUBLE)
    spent = sum(error**4 / freedom for error, (*_, freedom) in zip(errors, gaps, strict=True))
    assert_close(result.pivot.freedom, variance**2 / spent, DOUBLE)  # type: ignore[union-attr]


def test_skewness_of_captions_stays() -> None:
    tasks = ("pope", "coco2017_cap_val_lite")
    one, other, whole = (apart(share, *tasks) for share in (0.85, 0.5, 0.95))
    result, captions = (
        relative_lead(*(side[side["task"].isin(names)] for side in (one, other, whole))).pivot
        for names in (["lmms/pope", "lmms/coco2017_cap_val_lite"], ["lmms/coco2017_cap_val_lite"])
    )
    gaps = benchmark_differences(rows(0.85, tasks[1]), rows(0.5, tasks[1]))["coco_CIDEr"][2]
    skewness = gaps.pivot.skewness  # type: ignore[union-attr]
    assert abs(skewness) > 0.01
    assert_close(captions.skewness, skewness, DOUBLE)  # type: ignore[union-attr]
    # One of three scores, and no other is skewed.
    expected = skewness * (captions.error / 3 / result.error) ** 3  # type: ignore[union-attr]
    assert_close(result.skewness, expected, DOUBLE)  # type: ignore[union-attr]


def test_our_questions_are_compared_as_ever() -> None:
    one, other = scored("a", 0.7), scored("b", 0.4)
    assert not has_scores(one)
    assert lead(one, other, None) == difference(one, other)
    assert lead(one, other, other, share=0.9) == difference(one, other, share=0.9)
    assert list(apart_by_score(one)) == [("embedded/read", "")]
    assert_close(scores_of(one)["embedded/read", ""], 0.7, DOUBLE)


def test_a_score_that_the_full_cache_has_none_of_is_left_out() -> None:
    one, other = (apart(share, "pope", "mme") for share in (0.85, 0.5))
    whole = pd.concat([apart(0.95, "pope"), apart(0.0, "mme")])
    expected = relative_lead(*(side[side["task"] == "lmms/pope"] for side in (one, other, whole)))
    result = relative_lead(one, other, whole)
    assert_close((result.value, result.error), (expected.value, expected.error), DOUBLE)
    nothing = relative_lead(one, other, apart(0.0, "mme"))
    assert np.isnan(nothing.value) and nothing.n == 0 and nothing.above(0.0) == 1.0


def test_without_an_interval_of_one_score_there_is_none() -> None:
    """Nothing differs on MME, so its error is not known."""
    one, other = (pd.concat([apart(share, "pope"), apart(0.5, "mme")]) for share in (0.8, 0.5))
    result = relative_lead(one, other, apart(0.95, "pope", "mme"))
    assert result.pivot is None and result.value > 0


def test_what_cannot_be_compared_is_told() -> None:
    one, whole = apart(0.8, "pope"), apart(0.9, "pope")
    with pytest.raises(InputError, match="need the full cache's rows"):
        lead(one, one, None)
    with pytest.raises(InputError, match="asked different questions"):
        lead(one, one[one["item"] < 40], whole)
