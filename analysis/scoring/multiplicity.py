"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm (1979): those at most α are a set in which one is wrong in α.

    Whatever the dependence between the tests.

    Args:
        p_values: One a test.

    Returns:
        Adjusted ones in the same order: the i-th smallest of m times m − i + 1, never below those
        of smaller ones, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    count = len(order)
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(np.sort(p_values) * np.arange(count, 0, -1))
    return [float(p) for p in adjusted.clip(max=1)]
