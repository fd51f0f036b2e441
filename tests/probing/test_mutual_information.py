"""Estimators against exact values, invariances, and what independence must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.probing.mutual_information import (
    gaussian_information,
    interval,
    joint_information,
    knn_information,
    principal_components,
)
from lightkv.errors import InvalidValueError
from tests.closeness import assert_close


def gaussians(rho: float, dims: int, count: int, seed: int = 0) -> tuple[Any, Any, float]:
    """Pairs of correlated Gaussian vectors, mixed linearly, and their information in nats."""
    draw = np.random.default_rng(seed)
    x, noise = draw.normal(size=(2, count, dims))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    return x, y, -0.5 * dims * np.log(1 - rho**2)


@pytest.mark.parametrize("dims", [1, 2, 5])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_correlated_gaussians(rho: float, dims: int) -> None:
    x, y, exact = gaussians(rho, dims, 2000)
    assert gaussian_information(x, y, shrinkage=0.0) == pytest.approx(exact, abs=0.06)
    # Shrinkage biases weak information in many dimensions downwards.
    assert gaussian_information(x, y) == pytest.approx(exact, rel=0.07, abs=0.05)


@pytest.mark.parametrize(("dims", "rho", "off"), [(1, 0.3, 0.05), (1, 0.9, 0.07), (2, 0.6, 0.1)])
def test_neighbours_find_the_information_of_gaussians(dims: int, rho: float, off: float) -> None:
    x, y, exact = gaussians(rho, dims, 1500)
    assert knn_information(x, y) == pytest.approx(exact, abs=off)
    assert knn_information(x, y, ranks=False) == pytest.approx(exact, abs=off)


def test_neighbours_see_what_correlation_can_not() -> None:
    draw = np.random.default_rng(0)
    angle = draw.uniform(0, 2 * np.pi, 1000)
    x, y = np.cos(angle), np.sin(angle) + 0.1 * draw.normal(size=1000)
    assert gaussian_information(x, y) < 0.02
    assert knn_information(x, y) > 0.7


@pytest.mark.parametrize("estimator", [gaussian_information, knn_information])
@pytest.mark.parametrize("dims", [1, 3])
def test_independence_is_zero_within_the_interval(estimator: Any, dims: int) -> None:
    hits = 0
    for seed in range(8):
        draw = np.random.default_rng(seed)
        x, y = draw.normal(size=(2, 150, dims))
        hits += 0.0 in interval(estimator, x, y, resamples=15)
    assert hits >= 6


@pytest.mark.parametrize("estimator", [gaussian_information, knn_information])
def test_intervals_cover_the_truth(estimator: Any) -> None:
    hits = 0
    for seed in range(8):
        x, y, exact = gaussians(0.7, 1, 200, seed)
        hits += exact in interval(estimator, x, y, resamples=15)
    assert hits >= 6


def test_linear_maps_leave_the_gaussian_estimate_alone() -> None:
    x, y, _ = gaussians(0.6, 3, 100)
    draw = np.random.default_rng(1)
    left, right = draw.normal(size=(2, 3, 3))
    for shrinkage in (0.0, 0.2, "ledoit-wolf"):
        before = gaussian_information(x, y, shrinkage=shrinkage)  # type: ignore[arg-type]
        after = gaussian_information(
            x @ left + 5,
            1e3 * y @ right,
            shrinkage=shrinkage,  # type: ignore[arg-type]
        )
        assert after == pytest.approx(before, rel=1e-8)


def test_shrinkage_takes_the_bias_of_few_samples_away() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 60, 8))
    assert gaussian_information(x, y, shrinkage=0.0) > 0.5
    assert gaussian_information(x, y) < 0.1


def test_monotone_maps_of_coordinates_leave_the_neighbour_estimate_alone() -> None:
    x, y, _ = gaussians(0.6, 2, 200)
    bent = np.stack([np.exp(x[:, 0]), x[:, 1] ** 3], 1)
    assert knn_information(bent, np.arctan(y)) == knn_information(x, y)


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
        (lambda x: gaussian_information(x[:10], x[:10]), "at least d_x \\+ d_y \\+ 2 = 14"),
        (lambda x: gaussian_information(x, x[:-1]), "as many of x as of y"),
        (lambda x: gaussian_information(x * 0, x), "do not vary"),
        (lambda x: gaussian_information(x * np.nan, x), "finite"),
        (lambda x: gaussian_information(x[None], x), "samples, dimensions"),
        (lambda x: gaussian_information(x, x, shrinkage=2.0), "shrinkage"),
        (lambda x: knn_information(x[:4], x[:4]), "at least 5"),
        (lambda x: knn_information(x, x, neighbours=0), "at least 1"),
        (lambda x: knn_information(x * 0, x), "do not vary"),
        (lambda x: principal_components(x, 9), "from 1 to 6"),
    ],
)
def test_what_an_estimator_needs(call: Any, message: str) -> None:
    x, _, _ = gaussians(0.5, 6, 60)
    with pytest.raises(InvalidValueError, match=message):
        call(x)
