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

from analysis.simulation.grid import Cell
from analysis.simulation.pages import markdown
from figures.artefacts.agreement import AGREED
from figures.compound import all_of, any_of
from figures.rule_draws import (
    Draw,
    caption_differences,
    factorial_effects,
    graded_differences,
    graded_means,
    right_or_wrong_pairs,
    several_parts,
    similar_orders,
    unrelated_profiles,
)
from figures.verdicts import (
    MARGIN,
    Outcome,
    Verdict,
    at_least,
    at_most,
    differs,
    equivalent,
    gains,
    not_beaten,
)

if TYPE_CHECKING:
    import pandas as pd

REPEATS: Final = 400
SLOW: Final = 10
"""Rules that resample get that many times fewer repeats."""

QUESTIONS: Final = (12, 24, 48)
"""Per task."""

PROFILES: Final = "profiles over layers agree"
ORDERS: Final = f"orders of methods agree, at {AGREED:g}"

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
    repeats = max(2, cell["draws"] // SLOW) if cell["rule"] in (PROFILES, ORDERS) else cell["draws"]
    words = Counter(draw(generator, cell["n"]).outcome.value for _ in range(repeats))
    for word in false_words:
        yield {"word": word, "repeats": repeats, "share": words[word] / repeats}


def _all() -> dict[tuple[str, str], tuple[Draw, tuple[str, ...]]]:
    """What is simulated, by rule and setting, and which words are false there."""
    cases: dict[tuple[str, str], tuple[Draw, tuple[str, ...]]] = {}

    def add(rule: str, draws: Iterable[tuple[str, Draw]], *words: str) -> None:
        for setting, draw in draws:
            cases[rule, setting] = draw, words

    def against(judge: Callable[..., Verdict]) -> Callable[..., Verdict]:
        return lambda lead, what: judge(lead, 0.0, what)

    at_margin = f"at {MARGIN:g}"
    add("better, at 0", right_or_wrong_pairs(gains, 0.0), HOLDS)
    add(f"better, {at_margin}", right_or_wrong_pairs(gains, MARGIN), FAILS)
    add(f"alike, {at_margin}", right_or_wrong_pairs(equivalent, MARGIN), HOLDS, FAILS)
    add(f"best, {at_margin}", right_or_wrong_pairs(not_beaten, MARGIN), HOLDS)
    add("best, at 0", right_or_wrong_pairs(not_beaten, 0.0), FAILS)
    beyond = right_or_wrong_pairs(lambda lead, what: differs(lead, MARGIN, what), MARGIN)
    add(f"differs, {at_margin}", beyond, HOLDS, FAILS)
    add("keeps 98 %", right_or_wrong_pairs(against(at_least), 0.0, 0.98), HOLDS, FAILS)
    add("keeps 95 %", right_or_wrong_pairs(against(at_least), 0.0, 0.95), HOLDS, FAILS)
    add("collapses to 50 %", right_or_wrong_pairs(against(at_most), 0.0, 0.5), HOLDS, FAILS)
    for count, common in itertools.product((3, 14, 20), (True, False)):
        setting = f"{count} parts, {'one side shared' if common else 'apart'}"
        every = several_parts(all_of, gains, MARGIN, count=count, common=common)
        add(f"all of several better, {at_margin}", [(setting, every)], FAILS)
        some = several_parts(any_of, gains, 0.0, count=count, common=common)
        add("one of several better, at 0", [(setting, some)], HOLDS)
    add("graded difference above", graded_differences(), HOLDS, FAILS)
    add("effect in a factorial above", factorial_effects(), HOLDS, FAILS)
    add("difference of captions above", caption_differences(), HOLDS, FAILS)
    add("mean above", graded_means(), HOLDS, FAILS)
    add(PROFILES, unrelated_profiles(), HOLDS, FAILS)
    add(ORDERS, similar_orders(), HOLDS, FAILS)
    return cases


_DRAWS: Final = _all()
