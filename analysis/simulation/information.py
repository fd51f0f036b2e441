"""Bias, spread and coverage of estimators of mutual information.

Samples are pairs of d independent coordinates, y_i = ρ s(x_i) + √(1 − ρ²) e_i with Gaussian e, and

* **linear**: Gaussian x, s(x) = x, so the Gaussian information is all there is;
* **quadratic**: Gaussian x, s(x) = (x² − 1) / √2, so nothing is correlated;
* **mixed-discrete**: x = ±1, fair bits, s(x) = x.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from analysis.probing.canonical import (
    Array,
    gaussian_bias,
    gaussian_pivot,
    jackknife_terms,
    plain_information,
)
from analysis.probing.information import TIE_NOISE, knn_terms, normal_scores
from analysis.scoring.estimate import Estimate, Student
from analysis.simulation import candidates
from analysis.simulation.grid import Cell

KINDS: Final = ("linear", "quadratic", "mixed-discrete")
SAMPLES: Final = (32, 64, 128, 256, 1000)
DIMENSIONS: Final = (1, 2, 4, 8)
CORRELATIONS: Final = (0.0, 0.3, 0.6, 0.9)
REPEATS: Final = 400
PERMUTATIONS: Final = 10
SLOW: Final = 16
"""Neighbours and critics get that many times fewer repeats; fewer still at n = 1,000."""

DEFAULT: Final = "jackknife"
"""What :func:`analysis.probing.information.gaussian_information` is."""


def cells(
    repeats: int = REPEATS,
    *,
    samples: Sequence[int] = SAMPLES,
    dimensions: Sequence[int] = DIMENSIONS,
) -> list[Cell]:
    """All kinds of dependence; ``repeats`` draws of the estimators that cost little."""
    return [
        {"kind": kind, "n": n, "d": d, "rho": rho, "draws": repeats}
        for n, d, kind, rho in itertools.product(samples, dimensions, KINDS, CORRELATIONS)
    ]


def truth(kind: str, rho: float, dims: int) -> float:
    """Mutual information of a kind of dependence, in nats, by integration."""
    if kind == "linear" or not rho:
        return gaussian_truth(kind, rho, dims)
    return dims * _one_coordinate(kind, rho)


def gaussian_truth(kind: str, rho: float, dims: int) -> float:
    """Information of Gaussians with the same covariances."""
    return 0.0 if kind == "quadratic" or not rho else float(-0.5 * dims * np.log1p(-(rho**2)))


@cache
def _one_coordinate(kind: str, rho: float) -> float:
    """h(y) − h(e): the density of y is a mixture over x."""
    from scipy.stats import norm

    spread = np.sqrt(1 - rho**2)
    x = np.array([-1.0, 1.0]) if kind == "mixed-discrete" else np.linspace(-9, 9, 4001)
    weight = np.ones(2) if kind == "mixed-discrete" else norm.pdf(x)
    middle = rho * _signal(kind, x)
    y = np.linspace(middle.min() - 9 * spread, middle.max() + 9 * spread, 4001)
    density = norm.pdf(y[:, None], middle, spread) @ (weight / weight.sum())
    positive = density > 0
    entropy = -np.trapezoid(
        np.where(positive, density * np.log(np.where(positive, density, 1)), 0), y
    )
    return float(entropy - 0.5 * np.log(2 * np.pi * np.e * spread**2))


def _signal(kind: str, x: Any) -> Any:
    return (x**2 - 1) / np.sqrt(2) if kind == "quadratic" else x


def draw(
    kind: str, rho: float, shape: tuple[int, int, int], generator: np.random.Generator
) -> tuple[Array, Array]:
    """x and y of ``shape`` (draws, n, d)."""
    if kind == "mixed-discrete":
        x = 2.0 * generator.integers(0, 2, size=shape) - 1
    else:
        x = generator.normal(size=shape)
    y = rho * _signal(kind, x) + np.sqrt(1 - rho**2) * generator.normal(size=shape)
    return np.asarray(x, float), np.asarray(y, float)


def simulate(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """A row an estimator.

    estimator, repeats, truth (nats), mean, bias, sd, coverage (share of 95 % intervals that hold
    the truth) and width (of the interval); ``linear`` is the Gaussian information, and linear_bias
    and linear_coverage are about it, for estimators that aim at it.
    """
    kind, n, d, rho = (cell[name] for name in ("kind", "n", "d", "rho"))
    x, y = draw(kind, rho, (cell["draws"], n, d), generator)
    few = max(2, cell["draws"] // (SLOW * max(1, n // 500) * max(1, n * d // 2600)))
    aims = truth(kind, rho, d), gaussian_truth(kind, rho, d)
    for name, estimates in _canonical(x, y, generator).items():
        yield _row(name, estimates, *aims)
    slow: dict[str, list[Estimate]] = {}
    for left, right in zip(x[:few], y[:few], strict=True):
        for name, terms in _by_samples(_untied(left, generator), _untied(right, generator)).items():
            slow.setdefault(name, []).append(_by_t(terms))
    for name, estimates in slow.items():
        yield _row(name, estimates, aims[0], None)


def _canonical(x: Array, y: Array, generator: np.random.Generator) -> dict[str, list[Estimate]]:
    """Estimates from canonical correlations, with the interval of the default around each."""
    n, d = x.shape[1:]
    terms, plain = jackknife_terms(x, y), plain_information(x, y)
    shuffled = _permuted(x, y, generator)
    values = {
        DEFAULT: terms.mean(1),
        "Wishart": plain - gaussian_bias(n, d, d),
        "permutations": plain - shuffled,
        "plain": plain,
    }
    variances = terms.var(1, ddof=1)
    return {
        name: [
            Estimate(float(v), n, name, gaussian_pivot(float(v), float(s), n, (d, d)))
            for v, s in zip(estimates, variances, strict=True)
        ]
        for name, estimates in values.items()
    }


def _permuted(x: Array, y: Array, generator: np.random.Generator) -> Array:
    """Mean plain information (draws,) of x with permuted y."""
    left, right = (np.linalg.qr(side - side.mean(-2, keepdims=True))[0] for side in (x, y))
    total = np.zeros(len(x))
    for _ in range(PERMUTATIONS):
        across = left.swapaxes(-1, -2) @ right[:, generator.permutation(x.shape[1])]
        total -= 0.5 * np.log1p(-(np.linalg.svd(across, compute_uv=False) ** 2)).sum(-1)
    return np.asarray(total / PERMUTATIONS, float)


def _untied(side: Array, generator: np.random.Generator) -> Array:
    noise = generator.normal(size=side.shape)
    return side + TIE_NOISE * noise if len(np.unique(side)) < side.size else side


def _by_samples(x: Array, y: Array) -> dict[str, Array]:
    """Terms of the neighbours' and critics' estimates of (n, d) samples."""
    k = candidates.NEIGHBOURS
    terms = {
        "k-NN": knn_terms(x, y, k),
        "k-NN of ranks": knn_terms(normal_scores(x), normal_scores(y), k),
    }
    local = candidates.locally_corrected(x, y)
    if local is not None:
        terms["k-NN, local"] = local
    for name, critic in candidates.CRITICS.items():
        bounds = candidates.held_out_bounds(critic, x, y)
        terms |= {f"{bound}, {name}": values for bound, values in bounds.items()}
    return terms


def _by_t(terms: Array) -> Estimate:
    error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
    value = float(terms.mean())
    return Estimate(value, len(terms), "t", Student(value, error, len(terms) - 1.0))


def _row(name: str, estimates: list[Estimate], aim: float, linear: float | None) -> dict[str, Any]:
    values = np.array([one.value for one in estimates])
    bounds = np.array([one.bounds for one in estimates])
    return {
        "estimator": name,
        "repeats": len(values),
        "truth": aim,
        "mean": float(values.mean()),
        "bias": float(values.mean() - aim),
        "sd": float(values.std(ddof=1)),
        "coverage": _held(bounds, aim),
        "width": float((bounds[:, 1] - bounds[:, 0]).mean()),
        "linear": np.nan if linear is None else linear,
        "linear_bias": np.nan if linear is None else float(values.mean() - linear),
        "linear_coverage": np.nan if linear is None else _held(bounds, linear),
    }


def _held(bounds: Array, aim: float) -> float:
    """Share of intervals that hold a number; those of information reach down to 0."""
    return float(
        ((np.maximum(bounds[:, 0], 0) <= aim) & (aim <= np.maximum(bounds[:, 1], 0))).mean()
    )
