"""Estimators against exact values, invariances, and what independence must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma

from analysis.probing.canonical import gaussian_bias, gaussian_pivot, jackknife_terms
from analysis.probing.information import (
    gaussian_information,
    gaussian_terms,
    joint_information,
    knn_information,
    knn_samples,
    normal_scores,
    principal_components,
)
from lightkv.errors import InvalidValueError
from tests.closeness import DOUBLE, assert_close


def gaussians(rho: float, dims: int, count: int, seed: int = 0) -> tuple[Any, Any, float]:
    """Pairs of correlated Gaussian vectors, mixed linearly, and their information in nats."""
    draw = np.random.default_rng(seed)
    x, noise = draw.normal(size=(2, count, dims))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    return x, y, -0.5 * dims * np.log(1 - rho**2)


@pytest.mark.parametrize("dims", [1, 2, 4, 8])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_mean_over_draws_is_the_gaussian_information(dims: int, rho: float) -> None:
    draws, count = 400, 64
    draw = np.random.default_rng(dims)
    x, noise = draw.normal(size=(2, draws, count, dims))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    values = jackknife_terms(x, y).mean(-1)
    exact = -0.5 * dims * np.log(1 - rho**2)
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(draws)
    # Without the correction the mean would be off by more.
    assert gaussian_bias(count, dims, dims) > 4 * values.std() / np.sqrt(draws) or dims < 4


def test_dependence_without_correlation_leaves_no_bias() -> None:
    draw = np.random.default_rng(0)
    x, noise = draw.normal(size=(2, 400, 64, 4))
    y = 0.9 * (x**2 - 1) / np.sqrt(2) + np.sqrt(0.19) * noise
    values = jackknife_terms(x, y).mean(-1)
    assert abs(values.mean()) < 0.03
    # What a permutation or the Wishart correction would leave.
    assert abs(values.mean()) < 0.3 * 0.1


def test_terms_are_those_of_leaving_samples_out() -> None:
    x, y, _ = gaussians(0.6, 3, 30)
    y = y[:, :2]

    def plain(left: Any, right: Any) -> float:
        sides = [np.linalg.slogdet(np.cov(side.T, bias=True))[1] for side in (left, right)]
        joint = np.linalg.slogdet(np.cov(np.hstack([left, right]).T, bias=True))[1]
        return float(0.5 * (sides[0] + sides[1] - joint))

    bias = 30 * gaussian_bias(30, 3, 2) - 29 * gaussian_bias(29, 3, 2)
    wanted = [
        30 * plain(x, y) - 29 * plain(np.delete(x, i, 0), np.delete(y, i, 0)) - bias
        for i in range(30)
    ]
    assert_close(gaussian_terms(x, y), wanted, DOUBLE)
    assert gaussian_information(x, y).value == pytest.approx(np.mean(wanted))


def test_the_known_bias_is_that_of_a_wishart_matrix() -> None:
    # d_x = d_y = 1: E[log det] of a Wishart matrix with n - 1 degrees of freedom, by hand.
    wanted = 0.5 * (digamma(9 / 2) - digamma(8 / 2))
    assert gaussian_bias(10, 1, 1) == pytest.approx(wanted)
    assert gaussian_bias(2000, 4, 4) == pytest.approx(16 / (2 * 2000), rel=0.01)


@pytest.mark.parametrize(
    ("dims", "rho", "count"), [(1, 0.0, 32), (1, 0.3, 32), (4, 0.6, 64), (8, 0.9, 32)]
)
def test_intervals_hold_the_gaussian_information(dims: int, rho: float, count: int) -> None:
    exact, draws = -0.5 * dims * np.log(1 - rho**2), 300
    estimates = [
        gaussian_information(*gaussians(rho, dims, count, seed)[:2]) for seed in range(draws)
    ]
    assert sum(exact in one for one in estimates) / draws > 0.91


def test_the_interval_is_students_on_the_scale_of_the_root() -> None:
    pivot = gaussian_pivot(0.4, 2.0, 50, (2, 3))
    assert pivot.error == pytest.approx(0.2)
    assert pivot.freedom == 49
    assert pivot.shift == pytest.approx(0.1)
    half = stats.t.ppf(0.975, 49) * 0.2 / (2 * np.sqrt(0.5))
    low, high = pivot.bounds(0.95)
    assert low == pytest.approx((np.sqrt(0.5) - half) ** 2 - 0.1)
    assert high == pytest.approx((np.sqrt(0.5) + half) ** 2 - 0.1)
    assert pivot.above(low) == pytest.approx(0.025) and pivot.below(high) == pytest.approx(0.025)
    assert (pivot.above(-0.1), pivot.below(-0.1)) == (0, 1)
    # Too little variance in the terms: that of Gaussian samples, with the shift of their number.
    still = gaussian_pivot(0.4, 0.0, 50, (2, 3))
    assert still.error == pytest.approx(np.sqrt(2 * (1 - np.exp(-0.4)) / 50 + 6 / 5000))
    assert gaussian_pivot(-0.1, 0.0, 10, (8, 8)).shift == pytest.approx(64 / 40)
    assert gaussian_pivot(-0.1, 0.0, 50, (2, 3)).bounds(0.95)[0] == 0


def test_linear_maps_leave_the_gaussian_estimate_alone() -> None:
    x, y, _ = gaussians(0.6, 3, 100)
    left, right = np.random.default_rng(1).normal(size=(2, 3, 3))
    before, after = gaussian_terms(x, y), gaussian_terms(x @ left + 5, 1e3 * y @ right)
    assert_close(after, before, 1e3 * DOUBLE)


@pytest.mark.parametrize(("dims", "rho", "off"), [(1, 0.3, 0.05), (1, 0.9, 0.07), (2, 0.6, 0.1)])
def test_neighbours_find_the_information_of_gaussians(dims: int, rho: float, off: float) -> None:
    x, y, exact = gaussians(rho, dims, 1500)
    assert knn_information(x, y) == pytest.approx(exact, abs=off)
    assert knn_information(x, y, ranks=False) == pytest.approx(exact, abs=off)


def test_neighbours_are_kraskovs_first_estimator() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(2, 40, 1))
    apart = [np.abs(side - side.T) for side in (x, y)]
    joint = np.maximum(*apart)
    for neighbours in (1, 3, 5):
        terms = []
        for i in range(40):
            radius = np.sort(joint[i])[neighbours]
            near = [int((side[i] < radius).sum()) for side in apart]
            terms.append(digamma(neighbours) + digamma(40) - digamma(near[0]) - digamma(near[1]))
        estimate = knn_information(x, y, neighbours=neighbours, ranks=False)
        assert estimate == pytest.approx(np.mean(terms))
    assert knn_information(x, y) == knn_information(x, y, neighbours=3)


def test_neighbours_see_what_correlation_can_not() -> None:
    draw = np.random.default_rng(0)
    angle = draw.uniform(0, 2 * np.pi, 1000)
    x, y = np.cos(angle), np.sin(angle) + 0.1 * draw.normal(size=1000)
    assert gaussian_information(x, y).value < 0.02
    assert knn_information(x, y) > 0.7


def test_equal_bits_have_the_information_of_a_bit() -> None:
    bits = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    with pytest.raises(InvalidValueError, match="column 0 with 398 repeated values"):
        knn_information(bits, bits)
    for ranks in (True, False):
        estimate = knn_information(bits, bits, ranks=ranks, ties="break")
        assert estimate == pytest.approx(np.log(2), abs=0.06)
    draws = {knn_information(bits, bits, ties="break", seed=seed) for seed in (0, 0, 1)}
    assert len(draws) == 2


def test_noise_that_breaks_ties_changes_nothing_else() -> None:
    x, y, _ = gaussians(0.6, 1, 200)
    plain, broken = (knn_information(x, y, ranks=False, ties=t) for t in ("refuse", "break"))  # type: ignore[arg-type]
    assert plain == broken
    # Distances between ranks are tied themselves.
    assert knn_information(x, y, ties="break") == pytest.approx(knn_information(x, y), abs=0.01)


def test_monotone_maps_of_coordinates_leave_the_neighbour_estimate_alone() -> None:
    x, y, _ = gaussians(0.6, 2, 300)
    bent = np.stack([np.exp(x[:, 0]), x[:, 1] ** 3], 1)
    assert knn_information(bent, np.arctan(y)) == knn_information(x, y)


@pytest.mark.parametrize(("dims", "needed"), [(2, 32), (3, 91), (4, 256), (8, 16384)])
def test_neighbours_need_samples_by_dimension(dims: int, needed: int) -> None:
    assert knn_samples(dims) == needed


@settings(max_examples=50)
@given(st.integers(2, 6), st.integers(2, 8), st.integers(0, 1000))
def test_attention_information_of_products_permutations_and_sums(
    rows: int, columns: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    one = torch.rand(rows, generator=draw, dtype=torch.float64)
    other = torch.rand(columns, generator=draw, dtype=torch.float64)
    assert_close(joint_information(one[:, None] * other[None]).sum(), 0, 1e-6, scale=1)
    joint = torch.rand(rows, columns, generator=draw, dtype=torch.float64)
    terms = joint_information(joint)
    p = joint / joint.sum()
    exact = (p * (p / (p.sum(1, keepdim=True) * p.sum(0))).log()).sum()
    assert_close(terms.sum(), exact.float(), scale=1)
    assert bool((terms >= 0).all())
    order = torch.randperm(rows, generator=draw)
    assert_close(joint_information(joint[order] * 7), terms[order])


def test_attention_that_is_all_different_has_the_entropy_of_its_rows() -> None:
    assert float(joint_information(torch.eye(4)).sum()) == pytest.approx(np.log(4))
    assert not joint_information(torch.zeros(3, 5)).any()


def test_a_permuted_joint_has_no_information() -> None:
    """Keys permuted anew for each of many draws: the mean joint forgets who looks where."""
    draw = torch.Generator().manual_seed(0)
    joint = torch.eye(5) + 0.01
    mean = torch.zeros(5, 5)
    for _ in range(4000):
        mean += joint[:, torch.randperm(5, generator=draw)]
    assert float(joint_information(mean).sum()) < 1e-3 < float(joint_information(joint).sum())


def test_principal_components_come_largest_first() -> None:
    x, _, _ = gaussians(0.5, 6, 50)
    parts = principal_components(x, 2)
    assert parts.shape == (50, 2) and parts[:, 0].var() >= parts[:, 1].var()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gaussian_information(x[:23], x[:23]), "at least 2 \\(d_x \\+ d_y\\) = 24"),
        (lambda x: gaussian_information(x, x[:-1]), "as many of x as of y"),
        (lambda x: gaussian_information(x * 0, x), "x is .* do not vary"),
        (lambda x: gaussian_information(x, x * [1, 1, 1, 1, 1, 0]), "y is .* do not vary"),
        (lambda x: gaussian_information(x, 2 * x), "x and y is .* do not vary"),
        (lambda x: gaussian_information(x * np.nan, x), "finite"),
        (lambda x: gaussian_information(x[None], x), "samples, dimensions"),
        (lambda x: knn_information(x[:31, :1], x[:31, 1:2]), "at least 32"),
        (lambda x: knn_information(x[:, :1], x[:, 1:2], neighbours=59), "at least 61"),
        (lambda x: knn_information(x[:, :2], x[:, 2:4]), "at least 256"),
        (lambda x: knn_information(x[:, :1], x[:, 1:2], neighbours=0), "at least 1"),
        (lambda x: knn_information(x[:, :1], x[:, 1:2], ties="jitter"), "refuse"),  # type: ignore[arg-type]
        (lambda x: knn_information(x[:, :1] * 0, x[:, :1]), "x is 'column 0, constant'"),
        (lambda x: principal_components(x, 9), "from 1 to 6"),
    ],
)
def test_what_an_estimator_needs(call: Any, message: str) -> None:
    x, _, _ = gaussians(0.5, 6, 60)
    with pytest.raises(InvalidValueError, match=message):
        call(x)


def test_as_few_samples_as_are_allowed() -> None:
    x, y, _ = gaussians(0.5, 6, 24)
    assert np.isfinite(gaussian_information(x, y).high)
    x, y, _ = gaussians(0.5, 1, 32)
    assert np.isfinite(knn_information(x, y))


def test_every_column_is_looked_at() -> None:
    x, y, _ = gaussians(0.5, 2, 300)
    x[:, 1] = 3
    with pytest.raises(InvalidValueError, match="column 1, constant"):
        knn_information(x, y, ties="break")
    y[5, 1] = y[6, 1]
    with pytest.raises(InvalidValueError, match="y is 'column 1 with 1 repeated values'"):
        knn_information(x[:, :1], y)


def test_normal_scores_lie_evenly_around_the_middle() -> None:
    scores = normal_scores(np.array([[3.0, 1.0], [9.0, 1.0], [4.0, 5.0]]))
    assert_close(scores[:, 0], stats.norm.ppf([0.25, 0.75, 0.5]), scale=1)
    assert_close(scores[:, 1], stats.norm.ppf([0.375, 0.375, 0.75]), scale=1)
