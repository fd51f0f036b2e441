"""Choices in loops, and how close the closest of them was.

The package computes in single precision. A choice that depends on less than that can fall either
way there, so a case with such a choice is drawn again. Exact ties are not such choices: they go to
the first.
"""

from __future__ import annotations

import itertools
import math

EQUAL = 1e-12
STEP = 2e-3  # numbers of entries that differ by less than a thousandth count as equal


class Calls:
    """The closest call of a case, as a share of the largest number compared."""

    def __init__(self) -> None:
        self.closest = math.inf

    def note(self, apart: float, scale: float = 1.0) -> None:
        """A choice between numbers so far apart."""
        share = abs(apart) / max(scale, 1e-300)
        if share > EQUAL:
            self.closest = min(self.closest, share)

    def ordered(self, scores: dict[int, float]) -> list[int]:
        """Keys by falling score, the first key of equal ones first."""
        scale = max((abs(score) for score in scores.values()), default=1.0)
        order = sorted(scores, key=lambda key: (-scores[key], key))
        for one, other in itertools.pairwise(order):
            self.note(scores[one] - scores[other], scale)
        return order

    def best(self, scores: dict[int, float], count: int) -> list[int]:
        """The ``count`` keys of the highest scores."""
        order = sorted(scores, key=lambda key: (-scores[key], key))
        if 0 < count < len(order):
            scale = max(abs(score) for score in scores.values())
            self.note(scores[order[count - 1]] - scores[order[count]], scale)
        return order[: max(0, count)]

    def largest(self, scores: dict[int, float]) -> int:
        """The key of the highest score."""
        return self.best(scores, 1)[0]

    def at_least(self, value: float, bound: float) -> bool:
        """Whether a number reaches a bound."""
        self.note(value - bound, abs(bound))
        return value >= bound

    def whole(self, value: float) -> float:
        """A number of entries that is not close to a whole one unless it is one."""
        near = round(value)
        if abs(value - near) < 1e-9:
            return float(near)
        if abs(value - near) < STEP:
            self.closest = 0.0
        return value

    def rounded(self, value: float) -> int:
        """To the nearest whole number, halves to the even one."""
        half = abs(value - math.floor(value) - 0.5)
        if 1e-9 < half < STEP:
            self.closest = 0.0
        return round(math.floor(value) + 0.5 if half <= 1e-9 else value)
