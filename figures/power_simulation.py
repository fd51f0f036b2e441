"""How often a rule finds what is so: the power behind numbers of questions fixed beforehand.

A method that loses nothing answers some questions otherwise than the full cache, half of them
better and half of them worse, and is judged by whether it keeps 95 % of the full cache's score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import difference_of
from analysis.simulation.grid import Cell
from analysis.simulation.pages import markdown
from figures.artefacts.evictor_tables import NEARLY
from figures.verdicts import Outcome, at_least

if TYPE_CHECKING:
    import pandas as pd

REPEATS: Final = 2000
SCORE: Final = 0.92
"""Of both."""

CHANGED: Final = 0.03
"""Share of the questions that the two answer otherwise."""

FEWEST: Final = {"T-F4, T-T9: asked plainly": 288, "T-F6: 40 to 61 tokens": 140}
"""Parts of claims with the fewest of the planned questions, and how many these are."""


def cells(repeats: int = REPEATS) -> list[Cell]:
    """Every part at its number of questions; ``repeats`` runs of each."""
    return [{"part": part, "n": n, "draws": repeats} for part, n in FEWEST.items()]


def readable(frame: pd.DataFrame) -> str:
    """The share of runs in which each part holds, in percent."""
    import pandas as pd

    rows = [
        {"part of a claim": part, "questions": n, "holds, %": f"{100 * share:.0f}"}
        for part, n, share in frame[["part", "n", "share"]].itertuples(index=False)
    ]
    return markdown(pd.DataFrame(rows))


def simulate(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """share: of the runs, in which the rule says that the part holds."""
    runs = (answers(generator, cell["n"]) for _ in range(cell["draws"]))
    leads = (difference_of(ours, whole, share=NEARLY) for ours, whole in runs)
    holding = [at_least(lead, 0.0, "").outcome is Outcome.HOLDS for lead in leads]
    yield {"share": float(np.mean(holding))}


def answers(generator: np.random.Generator, n: int) -> Any:
    """Zero-or-one scores (2, n) of the method and of the full cache."""
    luck = generator.uniform(size=(2, n))
    whole = luck[0] < SCORE
    changed = luck[1] < CHANGED / 2 / np.where(whole, SCORE, 1 - SCORE)
    return np.stack([whole ^ changed, whole]).astype(float)
