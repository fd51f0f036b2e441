"""How many questions it would take to decide what is undecided."""

from __future__ import annotations

import math
from typing import Final

POWER: Final = 0.9
"""How often that many questions should decide, if the truth is what was estimated."""

LEVEL: Final = 0.975
ENDLESS: Final = 1_000_000
"""More questions than anybody asks."""


def questions_needed(n: int, p: float) -> float:
    """Questions that would decide a claim in :data:`POWER` of runs, if all stays as it is.

    A standard error shrinks with the root of their number, so a lead of z standard errors grows to
    the 1.96 + 1.28 that are needed.

    Args:
        n: Questions that were asked.
        p: The smaller of the two one-sided p-values.

    Returns:
        A whole number, infinity for an estimate on the edge between both words.
    """
    from scipy.special import ndtri

    lead = float(-ndtri(p))
    if lead <= 0:
        return math.inf
    return math.ceil(n * ((ndtri(LEVEL) + ndtri(POWER)) / lead) ** 2)


def in_words(needed: float) -> str:
    """That number with two digits, as part of a reason."""
    if needed > ENDLESS:
        return "so near the edge that no number of questions would decide it"
    return f"about {float(f'{needed:.2g}'):,.0f} questions would decide it if that is the truth"
