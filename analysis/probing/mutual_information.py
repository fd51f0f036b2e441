"""Mutual information, in nats: of attention, and between representations over samples.

* :func:`joint_information`: of a block of attention, normalised to a joint distribution;
* :func:`gaussian_information`: canonical correlations, exact for jointly Gaussian variables;
* :func:`knn_information`: the k-nearest-neighbour estimator of Kraskov, Stögbauer and Grassberger
  (Phys. Rev. E 69, 066138, 2004), which assumes no shape;
* :func:`interval`: 95 % interval over samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from scipy import stats
from scipy.spatial import cKDTree
from scipy.special import digamma, ndtri
from torch import Tensor

from lightkv.errors import InvalidValueError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Shrinkage = float | Literal["ledoit-wolf"]

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over ``samples`` samples."""

    value: float
    low: float
    high: float
    samples: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


# ------------------------------------------------------------------ attention


def joint_information(joint: Tensor) -> Tensor:
    """Information of a joint distribution, decomposed by its first variable.

    The sum over t is I(T; V) = Σ p(t, v) log(p(t, v) / (p(t) p(v))).

    Args:
        joint: (..., T, V) non-negative, not necessarily normalised; summed in float64.

    Returns:
        (..., T) float32 nats: p(t) KL(p(v | t) || p(v)), each at least 0; zero for an empty block.
    """
    mass = joint.double()
    total = mass.sum((-2, -1), keepdim=True)
    p = mass / total.clamp_min(torch.finfo(torch.float64).tiny)
    rows, columns = p.sum(-1, keepdim=True), p.sum(-2, keepdim=True)
    ratio = torch.where(p > 0, p / (rows * columns), 1)
    return (p * ratio.log()).sum(-1).clamp_min(0).float()


# ------------------------------------------------------------------ representations


def gaussian_information(x: Any, y: Any, *, shrinkage: Shrinkage = "ledoit-wolf") -> float:
    """I(X; Y) = −½ Σ log(1 − ρ²) over canonical correlations ρ.

    Both sides are whitened by their own covariance, so any invertible linear map of either leaves
    the result as it is; what is shrunk is the cross-covariance of the whitened sides. Without
    shrinkage the estimate is biased upwards by about d_x d_y / 2n.

    Args:
        x: (n, d_x) samples. y: (n, d_y) samples, the same order.
        shrinkage: Factor towards independence in [0, 1], or "ledoit-wolf" to estimate the best one
            (Ledoit and Wolf, 2004, on the whitened joint covariance).

    Raises:
        InvalidValueError: If the samples are too few to whiten both sides, not finite, constant,
            or not of the same number.
    """
    left, right = _matrix("x", x), _matrix("y", y)
    _same_length(left, right)
    needed = left.shape[1] + right.shape[1] + 2
    if len(left) < needed:
        raise InvalidValueError(
            "samples",
            len(left),
            f"at least d_x + d_y + 2 = {needed}; reduce the dimension with principal_components",
        )
    left, right = _whiten("x", left), _whiten("y", right)
    if shrinkage == "ledoit-wolf":
        from sklearn.covariance import ledoit_wolf_shrinkage

        factor = float(ledoit_wolf_shrinkage(np.hstack([left, right]), assume_centered=True))
    else:
        factor = float(shrinkage)
    if not 0 <= factor <= 1:
        raise InvalidValueError("shrinkage", shrinkage, "between 0 and 1, or 'ledoit-wolf'")
    correlations = np.linalg.svd(left.T @ right / len(left), compute_uv=False)
    rho = np.clip((1 - factor) * correlations, 0, 1 - 1e-12)
    return float(-0.5 * np.log1p(-(rho**2)).sum())


def knn_information(x: Any, y: Any, *, neighbours: int = 3, ranks: bool = True) -> float:
    """Kraskov's first estimator: ψ(k) + ψ(n) − ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩, maximum norm.

    Args:
        x: (n, d_x) samples. y: (n, d_y) samples, the same order. Few dimensions: reduce first.
        neighbours: k; larger is smoother and more biased towards 0.
        ranks: Replace every coordinate by normal scores of its ranks, so that monotone maps of
            single coordinates change nothing. Information itself is invariant under them.

    Returns:
        Nats; may come out slightly below 0 at independence.

    Raises:
        InvalidValueError: If there are not more samples than neighbours, or they are not finite,
            constant, or not of the same number.
    """
    left, right = _matrix("x", x), _matrix("y", y)
    _same_length(left, right)
    count = len(left)
    if neighbours < 1:
        raise InvalidValueError("neighbours", neighbours, "at least 1")
    if count < neighbours + 2:
        raise InvalidValueError("samples", count, f"at least {neighbours + 2}, neighbours + 2")
    for name, side in (("x", left), ("y", right)):
        _whiten(name, side[:, :1])
    if ranks:
        left, right = _normal_scores(left), _normal_scores(right)
    joint = np.hstack([left, right])
    distance, _ = cKDTree(joint).query(joint, k=neighbours + 1, p=np.inf)
    # Strictly nearer than the k-th neighbour.
    radius = np.nextafter(np.asarray(distance, float)[:, -1], 0)
    near = [_count_within(side, radius) for side in (left, right)]
    mean = np.mean(digamma(near[0] + 1) + digamma(near[1] + 1))
    return float(digamma(neighbours) + digamma(count) - mean)


def principal_components(x: Any, dims: int) -> Array:
    """(n, dims) scores of the largest principal components of (n, d) samples.

    Raises:
        InvalidValueError: If ``dims`` exceeds the samples or their dimension.
    """
    from sklearn.decomposition import PCA

    matrix = _matrix("x", x)
    if not 1 <= dims <= min(matrix.shape):
        raise InvalidValueError("dims", dims, f"from 1 to {min(matrix.shape)} for {matrix.shape}")
    return np.asarray(PCA(dims, svd_solver="full").fit_transform(matrix), float)


# ------------------------------------------------------------------ intervals


def interval(
    statistic: Callable[..., float],
    *samples: Any,
    resamples: int = 50,
    seed: int = 0,
    floor: float | None = 0.0,
) -> Estimate:
    """A statistic of paired samples with its 95 % interval, from half-samples.

    A bootstrap with replacement repeats samples, and repeated samples look like information to any
    of the estimators here. So halves are drawn without replacement: their spread estimates the
    standard error (delete-half jackknife; Shao and Wu, 1989), which needs no correction factor.

    Args:
        statistic: From arrays of samples to a number.
        *samples: Arrays whose first axis are the samples.
        resamples: Halves drawn.
        seed: Of the draws.
        floor: Lowest value the truth can have; the interval reaches down to it where the estimate
            lies below. None for no floor.

    Raises:
        InvalidValueError: What ``statistic`` raises when half of the samples are too few for it.
    """
    arrays = [np.asarray(values) for values in samples]
    count = len(arrays[0])
    value = float(statistic(*arrays))
    generator = np.random.default_rng(seed)
    halves = []
    for _ in range(resamples):
        chosen = generator.permutation(count)[: count // 2]
        halves.append(statistic(*(values[chosen] for values in arrays)))
    reach = float(ndtri((1 + LEVEL) / 2)) * float(np.std(halves, ddof=1))
    low, high = value - reach, value + reach
    if floor is not None:
        low, high = max(low, min(floor, value)), max(high, floor)
    return Estimate(value, low, high, count)


# ------------------------------------------------------------------ helpers


def _matrix(name: str, values: Any) -> Array:
    matrix = np.asarray(values, float)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InvalidValueError(name, matrix.shape, "an array (samples, dimensions)")
    if not np.isfinite(matrix).all():
        raise InvalidValueError(name, "an array with NaN or infinity", "finite numbers")
    return matrix


def _same_length(left: Array, right: Array) -> None:
    if len(left) != len(right):
        raise InvalidValueError("samples", (len(left), len(right)), "as many of x as of y")


def _whiten(name: str, matrix: Array) -> Array:
    """Centred samples with identity covariance.

    Raises:
        InvalidValueError: If a direction does not vary.
    """
    centred = matrix - matrix.mean(0)
    scores, values, _ = np.linalg.svd(centred, full_matrices=False)
    if values[-1] <= values[0] * 1e-10 or values[0] == 0:
        raise InvalidValueError(
            name,
            "samples that do not vary in some direction",
            "varying in every dimension; reduce it with principal_components",
        )
    return np.asarray(scores * np.sqrt(len(matrix)), float)


def _normal_scores(matrix: Array) -> Array:
    ranks = stats.rankdata(matrix, axis=0)
    return np.asarray(ndtri(ranks / (len(matrix) + 1)), float)


def _count_within(side: Array, radius: Array) -> Array:
    """Other samples within each sample's radius."""
    found = cKDTree(side).query_ball_point(side, radius, p=np.inf, return_length=True)
    return np.asarray(found, float) - 1
