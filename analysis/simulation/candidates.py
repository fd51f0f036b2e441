"""Estimators of mutual information that were tried beside the default one.

Each takes samples (n, d_x) and (n, d_y) and gives terms (n,) in nats whose mean it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np

from analysis.probing.canonical import Array
from analysis.probing.information import knn_terms

NEIGHBOURS: Final = 3
ALIKE: Final = 0.005
"""Share of evenly filled neighbourhoods that the local correction takes for uneven ones."""

CLIP: Final = 2.0
STRENGTH: Final = 0.01
NEGATIVES: Final = 4
Critic = Callable[[Array, Array, Array, Array], Array]
"""From x and y to learn from and x and y (m, d) to judge to scores (m, m) of all pairs."""


# ------------------------------------------------------------------ neighbours


def locally_corrected(x: Array, y: Array) -> Array | None:
    """k-NN terms plus the log of how much of a neighbourhood's box its principal box fills.

    After Gao, Ver Steeg and Galstyan (2015), with k = 2 (d_x + d_y); None if that is more than half
    of the samples.
    """
    dims = x.shape[1] + y.shape[1]
    neighbours = max(NEIGHBOURS, 2 * dims)
    if neighbours > len(x) // 2:
        return None
    joint = np.hstack([x, y])
    ratio = _filled(_neighbourhoods(joint, neighbours))
    return knn_terms(x, y, neighbours) - np.where(ratio < _threshold(neighbours, dims), ratio, 0)


def _neighbourhoods(joint: Array, neighbours: int) -> Array:
    """(n, k, d): the nearest samples around each, from itself."""
    from scipy.spatial import cKDTree

    index = np.asarray(cKDTree(joint).query(joint, k=neighbours + 1, p=np.inf)[1])
    return np.asarray(joint[index[:, 1:]] - joint[:, None], float)


def _filled(around: Array) -> Array:
    """(n,) log volume of the box along principal axes over that along the coordinates'."""
    _, _, axes = np.linalg.svd(around - around.mean(1, keepdims=True), full_matrices=True)
    turned = np.abs(np.einsum("nkd,ned->nke", around, axes)).max(1)
    tiny = np.finfo(float).tiny
    return np.asarray(
        np.log(turned + tiny).sum(1) - np.log(np.abs(around).max(1) + tiny).sum(1), float
    )


@cache
def _threshold(neighbours: int, dims: int) -> float:
    """Log ratio below which evenly filled neighbourhoods come by chance in :data:`ALIKE`."""
    draw = np.random.default_rng(0).uniform(-1, 1, size=(4000, neighbours, dims))
    return float(np.quantile(_filled(draw), ALIKE))


# ------------------------------------------------------------------ critics


def held_out_bounds(critic: Critic, x: Array, y: Array) -> dict[str, Array]:
    """Terms of two lower bounds, critics fitted on the other half.

    InfoNCE (van den Oord et al., 2018) and that of Donsker and Varadhan (1975).
    """
    from scipy.special import logsumexp

    nce, dv = [], []
    for scores in _held_out(critic, x, y):
        true, apart = np.diagonal(scores), scores[~np.eye(len(scores), dtype=bool)]
        nce.append(true - logsumexp(scores, axis=1) + np.log(len(scores)))
        dv.append(true - logsumexp(apart) + np.log(len(apart)))
    return {"InfoNCE": np.concatenate(nce), "DV": np.concatenate(dv)}


def _held_out(critic: Critic, x: Array, y: Array) -> list[Array]:
    half = len(x) // 2
    first, second = slice(0, half), slice(half, len(x))
    return [critic(x[a], y[a], x[b], y[b]) for a, b in ((first, second), (second, first))]


def gaussian_critic(x: Array, y: Array, x_new: Array, y_new: Array) -> Array:
    """Log density ratio of Gaussians with a shrunk covariance (Ledoit and Wolf, 2004)."""
    from sklearn.covariance import ledoit_wolf

    dims, joint = x.shape[1], np.hstack([x, y])
    mean, spread = joint.mean(0), joint.std(0)
    covariance, _ = ledoit_wolf((joint - mean) / spread)
    precise = np.linalg.inv(covariance)
    marginal = np.linalg.inv(covariance[:dims, :dims]), np.linalg.inv(covariance[dims:, dims:])
    left, right = (x_new - mean[:dims]) / spread[:dims], (y_new - mean[dims:]) / spread[dims:]
    by_left = np.einsum("ni,ij,nj->n", left, precise[:dims, :dims] - marginal[0], left)
    by_right = np.einsum("ni,ij,nj->n", right, precise[dims:, dims:] - marginal[1], right)
    crossed = 2 * left @ precise[:dims, dims:] @ right.T
    return np.asarray(-0.5 * (by_left[:, None] + by_right + crossed), float)


def quadratic_critic(x: Array, y: Array, x_new: Array, y_new: Array) -> Array:
    """Logistic regression of true against shifted pairs on products of powers up to two."""
    from sklearn.linear_model import LogisticRegression

    count = len(x)
    left, right = _powers(x, x), _powers(y, y)
    shifts = [1 + place * (count // NEGATIVES) for place in range(NEGATIVES)]
    pairs = [_products(left, right), *(_products(left, np.roll(right, s, 0)) for s in shifts)]
    labels = np.repeat([1, *[0] * NEGATIVES], count)
    weights = np.where(labels, NEGATIVES, 1)
    model = LogisticRegression(C=STRENGTH, max_iter=200)
    model.fit(np.vstack(pairs), labels, sample_weight=weights)
    weight = model.coef_.reshape(left.shape[1], right.shape[1])
    return np.asarray(_powers(x, x_new) @ weight @ _powers(y, y_new).T + model.intercept_, float)


def _powers(known: Array, new: Array) -> Array:
    """Standardised, clipped values and their squares, (m, 2 d)."""
    scaled = np.clip((new - known.mean(0)) / known.std(0), -CLIP, CLIP)
    return np.concatenate([scaled, (scaled**2 - 1) / np.sqrt(2)], 1)


def _products(left: Array, right: Array) -> Any:
    # (m, d) and (m, e): all products, (m, d e)
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


CRITICS: Final[dict[str, Critic]] = {"Gaussian": gaussian_critic, "quadratic": quadratic_critic}
