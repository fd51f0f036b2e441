"""The Gaussian information of samples, freed of bias, term by term; and its interval.

Everything here takes arrays as they are; :mod:`analysis.probing.information` checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.scoring.estimate import quantile, tail

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

ROOT_SHIFT: Final = 0.5
"""Standard errors added under the root on whose scale the interval is made."""


@dataclass(frozen=True)
class Rooted:
    """Information on the scale of √(I + shift), where its error hardly depends on it.

    Attributes:
        value: The estimate, in nats; may be below 0.
        error: Its standard error.
        freedom: Degrees of freedom of Student's t.
        shift: In nats.
    """

    value: float
    error: float
    freedom: float
    shift: float

    def bounds(self, level: float) -> tuple[float, float]:
        middle, error = self._rooted()
        reach = quantile(level, self.freedom) * error
        ends = (max(0.0, middle - reach), middle + reach)
        return max(0.0, ends[0] ** 2 - self.shift), max(0.0, ends[1] ** 2 - self.shift)

    def above(self, threshold: float) -> float:
        return self._tail(threshold, 1) if threshold >= 0 else 0.0

    def below(self, threshold: float) -> float:
        return self._tail(threshold, -1) if threshold >= 0 else 1.0

    def _tail(self, threshold: float, side: int) -> float:
        middle, error = self._rooted()
        return tail(side * (middle - np.sqrt(threshold + self.shift)) / error, self.freedom)

    def _rooted(self) -> tuple[float, float]:
        middle = float(np.sqrt(max(self.value, 0.0) + self.shift))
        return middle, self.error / (2 * middle)


def gaussian_pivot(value: float, variance: float, count: int, widths: tuple[int, int]) -> Rooted:
    """The interval's distribution from ``count`` terms: their mean and variance.

    The standard error is at least that of Gaussian samples, and the shift under the root is what
    keeps it from depending on the information there.
    """
    d_x, d_y = widths
    pairs, clipped = min(widths), max(value, 0.0)
    # Canonical correlations of a given information are largest in sum if they are alike.
    gaussian = pairs * -np.expm1(-2 * clipped / pairs) / count + d_x * d_y / (2 * count**2)
    error = float(np.sqrt(max(variance / count, gaussian)))
    return Rooted(value, error, count - 1.0, max(d_x * d_y / (4 * count), ROOT_SHIFT * error))


def plain_information(x: Array, y: Array) -> Array:
    """−½ Σ log(1 − ρ²) over the samples' canonical correlations, biased upwards by few samples.

    Args:
        x: (..., n, d_x) samples. y: (..., n, d_y).

    Returns:
        (...) nats.
    """
    return _parts(x, y)[0]


def jackknife_terms(x: Array, y: Array) -> Array:
    """Pseudo-values of the Gaussian information: what each sample adds to the unbiased estimate.

    Leaving a sample out changes the determinant of a covariance by a factor that its leverage
    gives, so no covariance is computed twice.

    Args:
        x: (..., n, d_x) samples. y: (..., n, d_y).

    Returns:
        (..., n) nats.
    """
    count, (d_x, d_y) = x.shape[-2], (x.shape[-1], y.shape[-1])
    plain, leverages = _parts(x, y)
    shrunk = [np.log1p(-count / (count - 1) * leverage) for leverage in leverages]
    without = plain[..., None] + 0.5 * (shrunk[0] + shrunk[1] - shrunk[2])
    left = count * gaussian_bias(count, d_x, d_y) - (count - 1) * gaussian_bias(count - 1, d_x, d_y)
    return np.asarray(count * plain[..., None] - (count - 1) * without - left)


def gaussian_bias(count: int, d_x: int, d_y: int) -> float:
    """By how much the plain estimate lies above the truth for ``count`` Gaussian samples, in nats.

    From the expected log determinant of a Wishart matrix; whatever the correlations are.
    """
    from scipy.special import digamma

    def expected(dims: int) -> float:
        return float(digamma((count - np.arange(1, dims + 1)) / 2).sum())

    return 0.5 * (expected(d_x) + expected(d_y) - expected(d_x + d_y))


def _parts(x: Array, y: Array) -> tuple[Array, list[Array]]:
    """Plain information (...), and leverages (..., n) of x, y and both together."""
    sides = [_leverage(side) for side in (x, y, np.concatenate([x, y], -1))]
    halves = [half for _, half in sides]
    return halves[0] + halves[1] - halves[2], [leverage for leverage, _ in sides]


def _leverage(samples: Array) -> tuple[Array, Array]:
    """Leverages (..., n) of centred samples, and half their log determinant (...)."""
    q, r = np.linalg.qr(samples - samples.mean(-2, keepdims=True))
    return (q**2).sum(-1), np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1))).sum(-1)
