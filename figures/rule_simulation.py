"""How often rules of verdicts err: each at the edge of what it claims, where errors are commonest.

A cell draws questions whose truth lies on the edge, judges them, and counts verdicts. On an edge
both words are as wrong as they can be: just beyond it one of them is false, just before it the
other. Rules with a margin have an edge for each word.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import difference_of, mean_of, rank_correlation, resampled
from analysis.simulation.grid import Cell
from analysis.simulation.pages import markdown
from figures.verdicts import (
    MARGIN,
    Outcome,
    Verdict,
    above,
    all_of,
    at_least,
    at_most,
    equivalent,
    gains,
    not_beaten,
    tested,
)

if TYPE_CHECKING:
    import pandas as pd

REPEATS: Final = 400
SLOW: Final = 10
"""The rule that resamples gets that many times fewer repeats."""

QUESTIONS: Final = (12, 24, 48)
"""Per task."""

TASKS: Final = (1, 4)
LAYERS: Final = 8
PROFILES: Final = "profiles over layers agree"
NOISES: Final = (0.5, 2.0, 8.0)
"""Standard deviation of a question's profile, over the distance of two layers."""

ALL_DIFFER: Final = "all differ"
RESPONSES: Final = {
    "few respond": ((0.8, 1.0, 1.0), (0.1, 0.7, 0.2), (0.1, 0.2, 0.7)),
    "few gain much": ((0.1, 0.9, 0.0), (0.9, 0.5, 0.6)),
    "near the floor": ((0.9, 0.0, 0.0), (0.05, 0.5, 0.1), (0.05, 0.1, 0.5)),
}
"""Kinds of questions in a factorial: their share, and the chances with and without a part."""

RESAMPLES: Final = 499
UNRELATED: Final = (4, 1, 5, 7, 8, 6, 3, 2)
"""Ranks whose correlation with 1, 2, ... 8 is zero."""

Values = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, int], Verdict]
"""From a generator and the questions per task to the verdict of one run."""

HOLDS, FAILS = Outcome.HOLDS.value, Outcome.FAILS.value


def cells(repeats: int = REPEATS, *, questions: Sequence[int] = QUESTIONS) -> list[Cell]:
    """All rules and settings, at ``questions`` per task; ``repeats`` runs of each."""
    return [
        {"rule": rule, "setting": setting, "n": n, "draws": repeats}
        for (rule, setting), n in itertools.product(_DRAWS, questions)
    ]


def readable(frame: pd.DataFrame) -> str:
    """The largest share of false verdicts of each rule by number of questions, in percent."""
    import pandas as pd

    rows = []
    for (rule, word), cells in frame.groupby(["rule", "word"], sort=False):
        row = {"rule": str(rule), "false word": str(word)}
        for n, at in cells.groupby("n"):
            worst = at.sort_values("share").iloc[-1]
            row[f"n = {n}"] = f"{100 * worst['share']:.1f} ({worst['setting']})"
        rows.append(row)
    return markdown(pd.DataFrame(rows).fillna("–"))


def simulate(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """word (that is false there), repeats and share (of runs that end in it), a row a word."""
    draw, false_words = _DRAWS[cell["rule"], cell["setting"]]
    repeats = max(2, cell["draws"] // SLOW) if cell["rule"] == PROFILES else cell["draws"]
    words = Counter(draw(generator, cell["n"]).outcome.value for _ in range(repeats))
    for word in false_words:
        yield {"word": word, "repeats": repeats, "share": words[word] / repeats}


# ------------------------------------------------------------------ draws


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


def _pairs(
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


def _parts(rule: Callable[..., Verdict], lead: float, count: int, common: bool) -> Draw:
    """A claim of ``count`` parts, each on its edge, against one setting or each against its own."""

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        first = right_and_wrong(generator, (0.6 + lead,), 2 * n, False)[0]
        verdicts = []
        for _ in range(count):
            if not common:
                first = right_and_wrong(generator, (0.6 + lead,), 2 * n, False)[0]
            other = right_and_wrong(generator, (0.6,), 2 * n, False)[0]
            verdicts.append(rule(difference_of(first, other, tasks=np.repeat([0, 1], n)), ""))
        return all_of(verdicts)

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


def _effect(kind: str, parts: int, tasks: int) -> Draw:
    """A main effect of zero in a factorial of so many parts.

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


def _profiles(noise: float) -> Draw:
    """Two profiles over layers without rank correlation, blurred by questions."""
    rising, other = np.arange(1.0, LAYERS + 1), np.asarray(UNRELATED, float)

    def draw(generator: np.random.Generator, n: int) -> Verdict:
        level = generator.normal(size=(2, n, 1))
        sides = np.stack([rising, other])[:, None] + noise * (
            level + generator.normal(size=(2, n, LAYERS))
        )
        rho = resampled(
            lambda rows: rank_correlation(sides[0][rows].mean(-2), sides[1][rows].mean(-2)),
            np.zeros(n),
            resamples=RESAMPLES,
        )
        return tested(rho.above(0.0), rho.below(0.0), "", "")

    return draw


# ------------------------------------------------------------------ all of them


def _all() -> dict[tuple[str, str], tuple[Draw, tuple[str, ...]]]:
    """What is simulated, by rule and setting, and which words are false there."""
    cases: dict[tuple[str, str], tuple[Draw, tuple[str, ...]]] = {}

    def add(rule: str, draws: Iterable[tuple[str, Draw]], *words: str) -> None:
        for setting, draw in draws:
            cases[rule, setting] = draw, words

    def against(judge: Callable[..., Verdict]) -> Callable[..., Verdict]:
        return lambda lead, what: judge(lead, 0.0, what)

    at_margin = f"at {MARGIN:g}"
    add("better, at 0", _pairs(gains, 0.0), HOLDS)
    add(f"better, {at_margin}", _pairs(gains, MARGIN), FAILS)
    add(f"alike, {at_margin}", _pairs(equivalent, MARGIN), HOLDS, FAILS)
    add(f"best, {at_margin}", _pairs(not_beaten, MARGIN), HOLDS)
    add("best, at 0", _pairs(not_beaten, 0.0), FAILS)
    add("keeps 98 %", _pairs(against(at_least), 0.0, 0.98), HOLDS, FAILS)
    add("keeps 95 %", _pairs(against(at_least), 0.0, 0.95), HOLDS, FAILS)
    add("collapses to 50 %", _pairs(against(at_most), 0.0, 0.5), HOLDS, FAILS)
    for count, common in itertools.product((3, 14, 20), (True, False)):
        setting = f"{count} parts, {'one side shared' if common else 'apart'}"
        draw = _parts(gains, MARGIN, count, common)
        add(f"all of several better, {at_margin}", [(setting, draw)], FAILS)
    graded = ((kind, _graded(kind)) for kind in ("independent", "a tenth differ"))
    add("graded difference above", graded, HOLDS, FAILS)
    effects = (
        (
            f"{kind}, {2**parts} settings, {tasks} task{'s' * (tasks > 1)}",
            _effect(kind, parts, tasks),
        )
        for kind, parts, tasks in itertools.product((*RESPONSES, ALL_DIFFER), (3, 5), TASKS)
    )
    add("effect in a factorial above", effects, HOLDS, FAILS)
    means = ((kind, _mean(kind)) for kind in ("normal", "skewed", "captions", "share of 0.9"))
    add("mean above", means, HOLDS, FAILS)
    add(PROFILES, ((f"noise {noise:g}", _profiles(noise)) for noise in NOISES), HOLDS, FAILS)
    return cases


_DRAWS: Final = _all()
