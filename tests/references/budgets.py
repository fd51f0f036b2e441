"""From what layers claim to whole numbers of entries, by bisection and largest remainders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from tests.references.calls import STEP, Calls


def entries(
    wishes: Sequence[float],
    floors: Sequence[int],
    ceilings: Sequence[int],
    calls: Calls,
    even: bool = False,
) -> list[int]:
    """Whole numbers within their bounds that add up to the wishes' total where they can.

    What a layer can't use goes to the others in proportion to their wishes, or to all alike.
    """
    total = sum(wishes)
    if total <= sum(floors):
        return list(floors)
    if total >= sum(ceilings):
        return list(ceilings)

    def moved(number: float) -> list[float]:
        raised = [w + number if even else w * number for w in wishes]
        return [min(max(r, f), c) for r, f, c in zip(raised, floors, ceilings, strict=True)]

    exact = moved(bisect(lambda number: sum(moved(number)) - total, even))
    return largest_remainders(exact, total, calls)


def bisect(excess: Callable[[float], float], even: bool) -> float:
    low, high = (-1e4, 1e4) if even else (0.0, 1e4)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def largest_remainders(values: Sequence[float], total: float, calls: Calls) -> list[int]:
    steady = [calls.whole(value) for value in values]
    counts = [math.floor(value) for value in steady]
    missing = calls.rounded(total) - sum(counts)
    left = [round(value - count, 9) for value, count in zip(steady, counts, strict=True)]
    order = sorted(range(len(left)), key=lambda layer: (-left[layer], layer))
    if 0 < missing < len(left):
        apart = left[order[missing - 1]] - left[order[missing]]
        if 0 < apart < STEP:
            calls.closest = 0.0
    for layer in order[:missing]:
        counts[layer] += 1
    return counts


def shared_out(claims: Sequence[float], total: float) -> list[float]:
    """A total in proportion to claims."""
    return [total * claim / sum(claims) for claim in claims]


def pyramid(base: float, layers: int, beta: float, length: int, window: int) -> list[float]:
    """Entries beside the window that fall linearly with depth (PyramidKV)."""
    mean = base - window
    if mean <= 0:
        return [base] * layers
    last = mean / beta
    first = 2 * mean - last
    if first > max(length - window, mean):
        first = max(length - window, mean)
        last = 2 * mean - first
    step = (first - last) / max(1, layers - 1)
    return [first - layer * step + window for layer in range(layers)]


def by_mass(masses: Sequence[Sequence[float]], total: float, calls: Calls) -> list[float]:
    """The smallest prefixes that hold one common share of each layer's mass (PrefixKV)."""
    cumulative = []
    for mass in masses:
        ordered = sorted(mass, reverse=True)
        sums = [sum(ordered[: place + 1]) / sum(ordered) for place in range(len(ordered))]
        cumulative.append(sums)
    wanted = calls.rounded(total)
    points = sorted(point for sums in cumulative for point in sums[:-1])
    for one, other in itertools.pairwise(points):
        calls.note(one - other)
    for share in [*points, 1.0]:
        sizes = []
        for sums in cumulative:
            reached = [place for place, point in enumerate(sums) if point >= share]
            sizes.append(min(reached, default=len(sums) - 1) + 1)
        if sum(sizes) >= wanted:
            break
    return [size * total / sum(sizes) for size in sizes]
