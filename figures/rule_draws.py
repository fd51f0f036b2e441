"""What rules of verdicts are simulated on: questions whose truth lies on the edge of a claim."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from analysis.asking.rows import VANILLA
from analysis.scoring.intervals import difference_of, mean_of, rank_correlation, resampled
from analysis.simulation.caption_scores import METRICS, caption_scores
from analysis.studies.compared import EVICTORS
from figures.artefacts.agreement import AGREED
from figures.verdicts import Verdict, above, correlated

TASKS: Final = (1, 4)
NOISES: Final = (0.5, 2.0, 8.0)
"""Standard deviation of a question's profile, over the distance of two layers."""

ALL_DIFFER: Final = "all differ"
RESPONSES: Final = {
    "few respond": ((0.8, 1.0, 1.0), (0.1, 0.7, 0.2), (0.1, 0.2, 0.7)),
    "few gain much": ((0.1, 0.9, 0.0), (0.9, 0.5, 0.6)),
    "near the floor": ((0.9, 0.0, 0.0), (0.05, 0.5, 0.1), (0.05, 0.1, 0.5)),
}
"""Kinds of questions in a factorial: their share, and the chances with and without a part."""

BUDGETS: Final = (50, 20, 10)
"""Percent of the cache at which captions are compared."""

RESAMPLES: Final = 499
UNRELATED: Final = (4, 1, 5, 7, 8, 6, 3, 2)
"""Ranks whose correlation with 1, 2, ... 8 is zero."""

SIMILAR: Final = (4, 3, 2, 1, 6, 5, 8, 7, 9)
"""Ranks whose correlation with 1, 2, ... 9 is 0.8."""

Values = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, int], Verdict]
"""From a generator and the questions per task to the verdict of one run."""


def right_and_wrong(
    generator: np.random.Generator, shares: tuple[float, ...], count: int, nested: bool
) -> list[Values]:
    """Zero-or-one scores (count,) of settings with these true shares.

    Nested: what one setting answers, every better one does, so that all differences have one sign.
    """
    draws = generator.uniform(size=(1 if nested else len(shares), count))
    return [(draws[0 if nested else k] < share).astype(float) for k, share in enumerate(shares)]


def _pair(
    rule: Callable[..., Verdict],
    one: float,
    other: float,
    *,
    tasks: int,
    nested: bool,
    share: float,
) -> Draw:
    def draw(generator: np.random.Generator, n: int) -> Verdict:
        sides = right_and_wrong(generator, (one, other), n * tasks, nested)
        names = np.repeat(np.arange(tasks), n)
        return rule(difference_of(*sides, share=share, tasks=names), "")

    return draw


def right_or_wrong_pairs(
    rule: Callable[..., Verdict], lead: float, share: float = 1.0
) -> Iterator[tuple[str, Draw]]:
    """Settings of two shares ``lead`` apart, the better of them high, middling or low."""
    for top, tasks, nested in itertools.product((1.0, 0.9, 0.5), TASKS, (True, False)):
        one, other = (top, top - lead) if share == 1 else (share * top, top)
        kind = "one-sided" if nested else "independent"
        name = f"{top:g}, {_tasks(tasks)}, {kind}"
        yield name, _pair(rule, one, other, tasks=tasks, nested=nested, share=share)


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count > 1)}"


def several_parts(
    whole: Callable[[Iterable[Verdict]], Verdict],
    rule: Callable[..., Verdict],
    lead: float,
    *,
    count: int,
    common: bool,
) -> Draw:
    """A claim of ``count`` parts, each on its edge, against one setting or each against its own."""

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        first = right_and_wrong(generator, (0.6 + lead,), 2 * n, False)[0]
        verdicts = []
        for _ in range(count):
            if not common:
                first = right_and_wrong(generator, (0.6 + lead,), 2 * n, False)[0]
            other = right_and_wrong(generator, (0.6,), 2 * n, False)[0]
            verdicts.append(rule(difference_of(first, other, tasks=np.repeat([0, 1], n)), ""))
        return whole(verdicts)

    return draw


def _graded(kind: str) -> Draw:
    def draw(generator: np.random.Generator, n: int) -> Verdict:
        if kind == "a tenth differ":
            changed = generator.uniform(size=n) < 0.1
            change = np.where(changed, generator.uniform(-0.8, 0.8, size=n), 0)
            first = np.full(n, 0.5)
            return above(difference_of(first + change / 2, first - change / 2), 0.0, "")
        first, second = generator.beta(2, 1, size=(2, n))
        return above(difference_of(first, second), 0.0, "")

    return draw


def graded_differences() -> Iterator[tuple[str, Draw]]:
    """Differences of graded scores: of unrelated ones, and such that are mostly none."""
    for kind in ("independent", "a tenth differ"):
        yield kind, _graded(kind)


def _effect(kind: str, parts: int, tasks: int) -> Draw:
    """A main effect of zero in a factorial of ``parts`` parts.

    Each of the questions is right with one chance in settings that have the part and with another
    in those that don't, see :data:`RESPONSES`.
    """

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        count, half = n * tasks, 2 ** (parts - 1)
        if kind == ALL_DIFFER:
            chances = generator.uniform(size=(count, 2))
        else:
            shares, *pair = zip(*RESPONSES[kind], strict=True)
            chances = np.array(pair).T[generator.choice(len(shares), size=count, p=shares)]
        used, unused = generator.binomial(half, chances.T) / half
        return above(difference_of(used, unused, tasks=np.repeat(np.arange(tasks), n)), 0.0, "")

    return draw


def factorial_effects() -> Iterator[tuple[str, Draw]]:
    """Main effects of zero in small and large factorials."""
    for kind, parts, tasks in itertools.product((*RESPONSES, ALL_DIFFER), (3, 5), TASKS):
        yield f"{kind}, {2**parts} settings, {_tasks(tasks)}", _effect(kind, parts, tasks)


def _captions(metric: str, one: Sequence[str], other: Sequence[str], share: float) -> Draw:
    """Questions drawn from real captions of two methods; the edge is their true difference."""

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        scores = caption_scores(metric)
        sides = [np.concatenate([scores[name] for name in names]) for names in (one, other)]
        truth = float(np.mean(sides[0] - share * sides[1]))
        rows = generator.integers(0, len(sides[0]), n)
        return above(difference_of(*(side[rows] for side in sides), share=share), truth, "")

    return draw


def caption_differences() -> Iterator[tuple[str, Draw]]:
    """What the captions' artefacts compare, at budgets at which captions are not at the floor."""
    at = {name: [f"{name} {budget} %" for budget in BUDGETS] for name in EVICTORS}
    for metric in METRICS:
        for other in EVICTORS[:-1]:
            yield f"{metric}, tgvkv over {other}", _captions(metric, at["tgvkv"], at[other], 1.0)
        for name, share in (("lightkv", 0.98), *((name, 0.9) for name in at["tgvkv"])):
            draw = _captions(metric, [name], [VANILLA], share)
            yield f"{metric}, {name}, {100 * share:g} % of the full cache", draw


def _mean(kind: str) -> Draw:
    def draw(generator: np.random.Generator, n: int) -> Verdict:
        if kind == "share of 0.9":
            return above(mean_of((generator.uniform(size=n) < 0.9).astype(float)), 0.9, "")
        values = {
            "normal": lambda: 1 + generator.normal(size=n),
            "skewed": lambda: generator.gamma(2, 0.5, size=n),
            "captions": lambda: generator.beta(8, 2, size=n) / 0.8,
        }[kind]()
        return above(mean_of(values), 1.0, "")

    return draw


def graded_means() -> Iterator[tuple[str, Draw]]:
    """Means at the value that they are compared with."""
    for kind in ("normal", "skewed", "captions", "share of 0.9"):
        yield kind, _mean(kind)


def unrelated_profiles() -> Iterator[tuple[str, Draw]]:
    """Two profiles over layers without rank correlation, blurred little or much."""
    for noise in NOISES:
        yield f"noise {noise:g}", _profiles(noise, UNRELATED, 0.0)


def similar_orders() -> Iterator[tuple[str, Draw]]:
    """Two orders of methods whose rank correlation is what counts as agreement, blurred likewise.

    A method's mean is a layer's of a profile.
    """
    for noise in NOISES:
        yield f"noise {noise:g}", _profiles(noise, SIMILAR, AGREED)


def _profiles(noise: float, ranks: Sequence[int], edge: float) -> Draw:
    """Profiles of rising ranks and of these, whose rank correlation is ``edge``, blurred."""
    rising, other = np.arange(1.0, len(ranks) + 1), np.asarray(ranks, float)

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        level = generator.normal(size=(2, n, 1))
        sides = np.stack([rising, other])[:, None] + noise * (
            level + generator.normal(size=(2, n, len(ranks)))
        )
        rho = resampled(
            lambda rows: rank_correlation(sides[0][rows].mean(-2), sides[1][rows].mean(-2)),
            np.zeros(n),
            resamples=RESAMPLES,
        )
        return correlated(rho, edge, "")

    return draw
