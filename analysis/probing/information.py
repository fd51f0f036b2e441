"""Mutual information, in nats: of attention, and between representations over samples.

* :func:`joint_information`: of a block of attention, normalised to a joint distribution;
* :func:`gaussian_information`: from canonical correlations, freed of the bias of few samples;
* :func:`knn_information`: the k-nearest-neighbour estimator of Kraskov, Stögbauer and Grassberger
  (Phys. Rev. E 69, 066138, 2004), which assumes no shape and needs many samples.

``lightkv simulate information`` measures bias, spread and coverage of these and of others; the
table in the documentation is why they are what they are.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from analysis.probing.canonical import gaussian_pivot, jackknife_terms
from analysis.scoring.estimate import Estimate
from lightkv.errors import InvalidValueError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SAMPLES_PER_DIMENSION: Final = 2
"""Fewest samples, per dimension of both sides together, with which the estimate was simulated."""

TIE_NOISE: Final = 1e-10
"""Standard deviation of the noise that breaks ties, over that of the column."""

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


def gaussian_information(x: Any, y: Any) -> Estimate:
    """I(X; Y) of Gaussians with the covariances of the samples, −½ Σ log(1 − ρ²).

    Freed of bias by the jackknife, and of what that leaves under a Gaussian distribution, which is
    known exactly. Any invertible linear map of either side leaves it as it is. Dependence without
    correlation is not seen: for Gaussian marginals it is a lower bound of their information.

    Args:
        x: (n, d_x) samples. y: (n, d_y) samples, the same order.

    Returns:
        Nats, slightly below 0 now and then at independence, with an interval that holds the
        Gaussian information.

    Raises:
        InvalidValueError: If there are fewer than 2 (d_x + d_y) samples, or they are not finite,
            constant in some direction, not of the same number, or one side gives a direction of the
            other exactly.
    """
    terms = gaussian_terms(x, y)
    widths = _matrix("x", x).shape[1], _matrix("y", y).shape[1]
    pivot = gaussian_pivot(float(terms.mean()), float(terms.var(ddof=1)), len(terms), widths)
    return Estimate(float(terms.mean()), len(terms), "jackknife", pivot)


def gaussian_terms(x: Any, y: Any) -> Array:
    """What each sample adds to :func:`gaussian_information`: (n,) nats whose mean it is.

    Raises:
        InvalidValueError: As :func:`gaussian_information`.
    """
    left, right = _matrix("x", x), _matrix("y", y)
    _same_length(left, right)
    needed = SAMPLES_PER_DIMENSION * (left.shape[1] + right.shape[1])
    if len(left) < needed:
        raise InvalidValueError(
            "samples",
            len(left),
            f"at least {SAMPLES_PER_DIMENSION} (d_x + d_y) = {needed}; "
            "reduce the dimension with principal_components",
        )
    for name, side in (("x", left), ("y", right)):
        _check_rank(name, side)
    _check_rank("x and y", np.hstack([left, right]))
    return jackknife_terms(left, right)


def knn_information(
    x: Any,
    y: Any,
    *,
    neighbours: int = 3,
    ranks: bool = True,
    ties: Literal["refuse", "break"] = "refuse",
    seed: int = 0,
) -> float:
    """Kraskov's first estimator: ψ(k) + ψ(n) − ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩, maximum norm.

    It takes no interval: its bias grows with the information and the dimension.

    Args:
        x: (n, d_x) samples. y: (n, d_y) samples, the same order.
        neighbours: k; larger is smoother and more biased towards 0.
        ranks: Replace every coordinate by normal scores of its ranks, so that monotone maps of
            single coordinates change nothing. Information itself is invariant under them.
        ties: Distances between equal values say nothing, so repeated values in a column are
            refused, or broken by Gaussian noise of 1e-10 of the column's standard deviation (after
            the ranks), drawn for each side.
        seed: Of that noise.

    Returns:
        Nats; may come out slightly below 0 at independence.

    Raises:
        InvalidValueError: If the samples are too few for their dimension (see
            :func:`knn_samples`) or for k, not finite, constant in a column, tied, or not of the
            same number.
    """
    left, right = _matrix("x", x), _matrix("y", y)
    _same_length(left, right)
    if neighbours < 1:
        raise InvalidValueError("neighbours", neighbours, "at least 1")
    if ties not in ("refuse", "break"):
        raise InvalidValueError("ties", ties, "'refuse' or 'break'")
    needed = max(knn_samples(left.shape[1] + right.shape[1]), neighbours + 2)
    if len(left) < needed:
        raise InvalidValueError(
            "samples",
            len(left),
            f"at least {needed} for {left.shape[1]} and {right.shape[1]} dimensions and "
            f"{neighbours} neighbours; reduce the dimension with principal_components",
        )
    for name, side in (("x", left), ("y", right)):
        _check_columns(name, side, ties == "refuse")
    if ranks:
        left, right = normal_scores(left), normal_scores(right)
    if ties == "break":
        generator = np.random.default_rng(seed)
        left, right = (
            side + TIE_NOISE * side.std(0) * generator.normal(size=side.shape)
            for side in (left, right)
        )
    return float(knn_terms(left, right, neighbours).mean())


def knn_samples(dims: int) -> int:
    """Samples from which the bias is below a tenth of the information, for both sides' dims.

    4 · 8^(dims / 2): 32 for one dimension a side and 256 for two, as simulated up to a correlation
    of 0.9; beyond that it is extrapolated, 16,384 for four.
    """
    return int(np.ceil(4 * 8 ** (dims / 2)))


def knn_terms(x: Array, y: Array, neighbours: int) -> Array:
    """(n,) nats whose mean is the estimate of :func:`knn_information`, without checks."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    joint = np.hstack([x, y])
    distance, _ = cKDTree(joint).query(joint, k=neighbours + 1, p=np.inf)
    # Strictly nearer than the k-th neighbour.
    radius = np.nextafter(np.asarray(distance, float)[:, -1], 0)
    near = [
        cKDTree(side).query_ball_point(side, radius, p=np.inf, return_length=True)
        for side in (x, y)
    ]
    # A ball holds its own sample: what is counted is the others, plus 1.
    return np.asarray(
        digamma(neighbours) + digamma(len(x)) - digamma(near[0]) - digamma(near[1]), float
    )


def normal_scores(matrix: Array) -> Array:
    """Every column by the normal quantiles of its ranks, equal values alike."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri(rankdata(matrix, axis=0) / (len(matrix) + 1)), float)


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


# ------------------------------------------------------------------ checks


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


def _check_rank(name: str, matrix: Array) -> None:
    """Refuse samples that do not vary in some direction."""
    values = np.linalg.svd(matrix - matrix.mean(0), compute_uv=False)
    if values[-1] <= values[0] * 1e-10 or values[0] == 0:
        raise InvalidValueError(
            name,
            "samples that do not vary in some direction",
            "varying in every dimension, with no direction that follows from the others; reduce it "
            "with principal_components",
        )


def _check_columns(name: str, matrix: Array, distinct: bool) -> None:
    """Refuse columns that are constant, and those with repeated values if they must be distinct."""
    for column, values in enumerate(matrix.T):
        count = len(np.unique(values))
        if count == 1:
            raise InvalidValueError(name, f"column {column}, constant", "columns that vary")
        if distinct and count < len(values):
            raise InvalidValueError(
                name,
                f"column {column} with {len(values) - count} repeated values",
                "values that differ, or ties='break' for noise of 1e-10 of the column's spread",
            )
