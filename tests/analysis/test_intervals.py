"""Intervals against closed forms, what they do at the ends, tasks, pairs and pictures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.scoring.estimate import Estimate, Resampled, Student, Wilson, exactly
from analysis.scoring.intervals import (
    difference,
    difference_of,
    mean,
    mean_of,
    rank_correlation,
    resampled,
)
from lightkv.errors import InputError, InvalidValueError

Z = stats.norm.ppf(0.975)


def rows(scores: list[float], task: str = "toy", **columns: object) -> pd.DataFrame:
    usual = {"task": task, "seed": 0, "item": range(len(scores)), "score": scores}
    return pd.DataFrame({**usual, **columns})


@pytest.mark.parametrize(("right", "n"), [(0, 20), (7, 20), (20, 20), (1, 1)])
def test_one_share_gets_wilsons_interval(right: int, n: int) -> None:
    estimate = mean_of([1.0] * right + [0.0] * (n - right))
    share = right / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    assert (estimate.n, estimate.method, estimate.value) == (n, "wilson", pytest.approx(share))
    assert estimate.low == pytest.approx(max(0, middle - half), abs=1e-12)
    assert estimate.high == pytest.approx(min(1, middle + half), abs=1e-12)
    assert estimate.error == pytest.approx(half / Z, rel=0.5)


def test_graded_scores_get_students_t() -> None:
    left = np.random.default_rng(1).normal(0.5, 0.1, 6)
    scores = np.concatenate([left, 1.02 - left])  # not skewed
    estimate = mean_of(scores)
    test = stats.ttest_1samp(scores, 0.45)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(test.confidence_interval()))
    assert estimate.method == "t"
    greater = stats.ttest_1samp(scores, 0.45, alternative="greater").pvalue
    assert estimate.above(0.45) == pytest.approx(greater)
    assert estimate.below(0.45) == pytest.approx(1 - greater)
    narrow = mean_of(scores, level=0.5)
    assert estimate.low < narrow.low < narrow.high < estimate.high


def test_skewed_scores_get_halls_cubic() -> None:
    scores = np.random.default_rng(1).gamma(1, 0.1, 16)
    estimate, error = mean_of(scores), stats.sem(scores)
    skewness = stats.kstat(scores, 3) / scores.std(ddof=1) ** 3 / 4
    lead = (estimate.value - 0.08) / error
    cubic = lead + skewness * lead**2 / 3 + skewness**2 * lead**3 / 27 + skewness / 6
    assert estimate.above(0.08) == pytest.approx(stats.t.sf(cubic, 15))
    assert estimate.below(0.08) == pytest.approx(stats.t.cdf(cubic, 15))
    assert estimate.high - estimate.value > estimate.value - estimate.low
    turned = mean_of(1 - scores)
    assert (1 - turned.high, 1 - turned.low) == pytest.approx(estimate.bounds)


@pytest.mark.parametrize("skewness", [0.0, 1e-18, 1e-9, -1e-9, 0.3, -0.3, 2.0, -2.0])
def test_bounds_undo_the_cubic(skewness: float) -> None:
    student = Student(0.4, 0.1, 9.0, skewness)
    for level in (0.5, 0.95, 0.999):
        low, high = student.bounds(level)
        assert student.above(low) == pytest.approx((1 - level) / 2)
        assert student.below(high) == pytest.approx((1 - level) / 2)
        assert low < high


def test_skewness_is_corrected_from_five_questions_on_and_not_over_pictures() -> None:
    scores = [0.1, 0.2, 0.2, 0.3, 0.9]
    few, enough = mean_of(scores[1:]), mean_of(scores)
    assert few.value - few.low == pytest.approx(few.high - few.value)
    assert enough.high - enough.value > 1.1 * (enough.value - enough.low)
    clustered = mean_of(scores, pictures=[0, 0, 1, 2, 3])
    assert clustered.high - clustered.value == pytest.approx(clustered.value - clustered.low)


def test_skewness_of_several_tasks_is_that_of_the_mean_of_their_means() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.gamma(1, 0.1, 12), generator.gamma(1, 0.1, 30)
    both = mean_of([*one, *other], tasks=["a"] * 12 + ["b"] * 30)
    parts = [(stats.kstat(x, 2) / len(x), stats.kstat(x, 3) / len(x) ** 2) for x in (one, other)]
    variance, third = (sum(part) for part in zip(*parts, strict=True))
    assert both.pivot == Student(
        pytest.approx((one.mean() + other.mean()) / 2),
        pytest.approx(variance**0.5 / 2),
        both.pivot.freedom,  # type: ignore[union-attr]
        pytest.approx(third / variance**1.5),
    )
    same = mean_of([*one, *[0.5] * 8], tasks=["a"] * 12 + ["b"] * 8)
    assert same.pivot.skewness == pytest.approx(mean_of(one).pivot.skewness)  # type: ignore[union-attr]


def test_an_interval_and_its_p_values_agree() -> None:
    for estimate in (
        mean_of([1.0] * 14 + [0.0] * 6),
        mean_of([0.1, 0.4, 0.2, 0.7]),
        difference(rows([1, 1, 1, 0, 1, 1.0]), rows([0, 1, 0, 0, 0, 1.0])),
    ):
        assert estimate.above(estimate.low) == pytest.approx(0.025, abs=1e-6)
        assert estimate.below(estimate.high) == pytest.approx(0.025, abs=1e-6)
        assert estimate.value in estimate and estimate.high + 0.01 not in estimate


def test_shares_of_several_tasks_get_two_pseudo_questions_at_each_end_among_them() -> None:
    frame = pd.concat([rows([1.0] * 9 + [0.0], "a"), rows([1.0] * 20, "b")])
    estimate = mean(frame)
    first, second = (9 + 1) / 12, (20 + 1) / 22
    variance = (first * (1 - first) / 12 + second * (1 - second) / 22) / 4
    assert estimate.value == pytest.approx(0.95)
    assert estimate.method == "normal"
    centre = (first + second) / 2
    assert estimate.low == pytest.approx(centre - Z * math.sqrt(variance))
    assert estimate.high == pytest.approx(centre + Z * math.sqrt(variance))


def test_paired_differences_get_two_pseudo_questions_at_each_end() -> None:
    # 8 gains, 1 loss among 20.
    one, other = rows([1.0] * 8 + [0.0] + [1.0] * 11), rows([0.0] * 8 + [1.0] + [1.0] * 11)
    gained = difference(one, other)
    centre, square = (8 - 1) / 24, (9 + 4) / 24
    half = Z * math.sqrt((square - centre**2) / 24)
    assert gained.value == pytest.approx(7 / 20)
    assert (gained.low, gained.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("count", [10, 24, 100])
def test_questions_that_all_agree_leave_room_for_error(count: int) -> None:
    same = difference(rows([1.0] * count), rows([1.0] * count))
    assert same.value == 0 and same.high == pytest.approx(-same.low)
    # About as wide as what that many equal questions allow.
    assert same.high > 1 - 0.025 ** (1 / count) - 0.03
    part = difference(rows([1.0] * count), rows([1.0] * count), share=0.98)
    assert part.value == pytest.approx(0.02) and part.low < 0


def test_share_of_the_other_side() -> None:
    gained = difference(rows([0.5, 0.4, 0.7]), rows([1.0, 0.8, 0.6]), share=0.5)
    assert gained.value == pytest.approx(np.mean([0.0, 0.0, 0.4]))
    test = stats.ttest_1samp([0.0, 0.0, 0.4], 0)
    assert gained.low == pytest.approx(test.confidence_interval().low)


def test_pairs_are_matched_by_question_and_only_shared_ones_count() -> None:
    whole, part = rows([0.1, 0.9, 0.4, 0.3]), rows([0.1, 0.9, 0.4])
    gained = difference(whole, part.sample(frac=1, random_state=1))
    assert (gained.value, gained.n) == (0, 3)


def test_rows_of_one_question_are_averaged_and_missing_ones_left_out() -> None:
    frame = pd.concat([rows([0.0, 0.5, math.nan]), rows([1.0, 0.7, math.nan])])
    estimate = mean(frame)
    assert (estimate.value, estimate.n) == (pytest.approx(0.55), 2)


def test_tasks_weigh_alike_whatever_their_size() -> None:
    frame = pd.concat([rows([1.0] * 10, "a"), rows([0.0] * 30, "b")])
    assert mean(frame).value == 0.5
    graded = pd.concat([rows([0.1, 0.2, 0.4], "a"), rows([0.5, 0.9] * 4, "b")])
    estimate = mean(graded)
    errors = [np.var([0.1, 0.2, 0.4], ddof=1) / 3, np.var([0.5, 0.9] * 4, ddof=1) / 8]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 7)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(sum(errors)) / 2
    assert estimate.high - estimate.low == pytest.approx(2 * reach)


def test_questions_about_one_picture_are_not_independent() -> None:
    draw = np.random.default_rng(0)
    pictures = np.repeat(np.arange(12), 4)
    scores = np.repeat(draw.normal(size=12), 4)
    apart, together = mean_of(scores), mean_of(scores, pictures=pictures)
    assert together.value == apart.value
    reach = stats.t.ppf(0.975, 11) * scores[::4].std(ddof=1) / math.sqrt(12)
    assert together.high - together.low == pytest.approx(2 * reach, rel=0.02)
    assert apart.high - apart.low < reach * 1.1
    # Pictures with one question each change nothing.
    assert mean_of(scores, pictures=np.arange(48)) == apart
    frame = rows(scores.tolist(), picture=pictures)
    assert mean(frame).low == pytest.approx(together.low)
    coins = mean_of(np.repeat([0.0, 1.0] * 6, 4), pictures=pictures)
    assert coins.method == "t" and coins.high - coins.low > 0.5


def test_alike_within_pictures_is_never_narrower_than_apart() -> None:
    scores = np.tile([0.1, 0.9], 10)
    apart, together = mean_of(scores), mean_of(scores, pictures=np.repeat(np.arange(10), 2))
    assert together.error == pytest.approx(apart.error)


def test_one_question_has_no_interval_unless_it_is_right_or_wrong() -> None:
    alone = mean_of([0.5])
    assert (alone.method, alone.value) == ("none", 0.5)
    assert math.isnan(alone.low) and math.isnan(alone.error) and alone.above(0) == 1
    assert alone.below(1) == 1
    assert mean_of([0.5, 0.7], pictures=["a", "a"]).method == "none"
    assert mean(rows([])).n == 0


@pytest.mark.parametrize("scores", [[], [1.0, math.nan]])
def test_missing_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(InputError):
        mean_of(scores)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_checked(level: float) -> None:
    with pytest.raises(InvalidValueError, match="level"):
        mean_of([1.0], level=level)


def test_numbers_without_error() -> None:
    fixed = exactly(0.3, 5)
    assert (fixed.low, fixed.high, fixed.n) == (0.3, 0.3, 5)
    assert (fixed.above(0.2), fixed.above(0.3), fixed.below(0.3), fixed.below(0.4)) == (0, 1, 1, 0)
    assert mean_of([0.5] * 4).low == 0.5


def test_wilson_knows_the_ends() -> None:
    some = Wilson(3, 10)
    assert (some.above(0.0), some.below(1.0)) == (0, 0)
    assert (Wilson(0, 10).above(0.0), Wilson(10, 10).below(1.0)) == (1, 1)
    assert some.above(0.3) == pytest.approx(0.5)
    assert some.above(0.1) < 0.025 < some.above(0.2)


def test_bootstrap_draws_questions_within_their_task() -> None:
    values = np.concatenate([np.zeros(10), np.linspace(1, 2, 30)])
    tasks = ["a"] * 10 + ["b"] * 30
    counts = set()

    def statistic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        counts.add((a.shape[-1], b.shape[-1]))
        assert a.max() < 10 <= b.min()
        return (values[a].sum(-1) + values[b].sum(-1)) / 40

    estimate = resampled(statistic, tasks)
    assert counts == {(10, 30)}
    assert estimate.method == "bootstrap" and estimate.value == pytest.approx(values.mean())
    half = Z * values[10:].std() / math.sqrt(30) * 0.75
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.05)
    assert estimate.error == pytest.approx(half / Z, rel=0.05)
    assert estimate == resampled(statistic, tasks)
    assert estimate != resampled(statistic, tasks, seed=1)


def test_bootstrap_leaves_out_draws_without_a_value() -> None:
    values = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    ranked = resampled(
        lambda rows: rank_correlation(values[rows].mean(-2), [1.0, 2.0]), np.zeros(4)
    )
    assert not np.isfinite(ranked.value) and ranked.pivot is None
    values[1, 1] = 3.0
    ranked = resampled(
        lambda rows: rank_correlation(values[rows].mean(-2), [1.0, 2.0]), np.zeros(4)
    )
    assert isinstance(ranked.pivot, Resampled)
    assert 1000 < len(ranked.pivot.draws) < 9999
    assert set(ranked.pivot.draws) == {-1.0, 1.0}


def test_rank_correlation_is_spearmans() -> None:
    left, right = np.random.default_rng(0).integers(0, 5, size=(2, 3, 9)).astype(float)
    correlation = rank_correlation(left, right)
    wanted = [stats.spearmanr(a, b).statistic for a, b in zip(left, right, strict=True)]
    assert correlation == pytest.approx(wanted)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4)))


def test_scores_of_different_number_are_not_paired() -> None:
    with pytest.raises(InputError, match="3 scores can't be paired with 2"):
        difference_of([1, 0, 1], [1, 0])


def test_arrays_and_frames_agree() -> None:
    one, other = pd.concat([rows([1, 0, 1.0], "a"), rows([0, 0, 1, 1.0], "b")]), None
    other = one.assign(score=[0, 0, 1, 1, 1, 1, 0.0])
    tasks = one["task"].to_numpy()
    assert mean(one) == mean_of(one["score"], tasks=tasks)
    gained = difference(one, other, share=0.9)
    assert gained == difference_of(one["score"], other["score"], tasks=tasks, share=0.9)


def test_bootstrap_p_values_count_draws() -> None:
    pivot = Resampled((1.0, 2.0, 3.0, 4.0))
    assert (pivot.above(2.0), pivot.below(2.0)) == (3 / 5, 4 / 5)
    assert pivot.bounds(0.5) == pytest.approx((1.75, 3.25))


def test_bootstrap_without_variation_or_questions() -> None:
    assert resampled(lambda _: float("nan"), np.zeros(5)).method == "none"
    assert resampled(lambda *_: 1.0, ["a", "b", "b"]).method == "none"


def test_estimates_print_with_their_interval() -> None:
    estimate = Estimate(0.5, 10, "t", Student(0.5, 0.1, np.inf))
    assert f"{estimate}" == "0.50 [0.30, 0.70]"
    assert f"{estimate:.3f}" == "0.500 [0.304, 0.696]"


def test_differences_of_other_quantities_than_scores_are_not_alike_by_chance() -> None:
    shares = [0.5] * 4
    scores = difference_of(shares, shares)
    assert scores.high - scores.low > 0.9
    other = difference_of(shares, shares, scores=False)
    assert (other.low, other.high) == (0, 0)
    # Points out of a hundred are no scores from 0 to 1.
    points = difference_of([50.0] * 4, [30.0] * 4)
    assert (points.low, points.high) == (20, 20)


def test_an_interval_holds_its_ends() -> None:
    estimate = mean_of([0.2, 0.4, 0.9])
    assert estimate.low in estimate
    assert estimate.high in estimate
    assert estimate.high + 1e-9 not in estimate
    assert estimate.low - 1e-9 not in estimate
