"""How often the intervals of benchmark scores hold the truth, by simulation.

Sets are drawn from known populations: pictures differ in difficulty, and questions about one are
alike. The truth is the score of a very large set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.aggregates import Array, jackknife, over_strata, ratio
from analysis.scoring.estimate import Estimate
from analysis.scoring.formulas import FORMULAS
from analysis.scoring.intervals import mean_of
from analysis.scoring.leads import weighted_sum
from analysis.simulation.grid import Cell
from analysis.simulation.pages import markdown

if TYPE_CHECKING:
    import pandas as pd

Generator = np.random.Generator
Strata = list[Array]
"""Numbers (units, k) of each stratum."""

Draw = Callable[[Generator, int], tuple[Strata, Strata]]

SIZES: Final = (20, 50, 100, 300)
REPEATS: Final = 2000
LARGE: Final = 1_000_000
"""Units of the set whose score is the truth."""

PART: Final = 100_000

WORSE: Final = 0.04
"""How much less likely the second method is to be right."""

SIDES: Final = {"score": 1, "difference": 2}
"""Methods whose sets are drawn."""


AVERAGE: Final = "mean of all four, as shares of the full cache's"
"""What claims over several benchmarks are judged by, see :mod:`analysis.scoring.leads`."""


@dataclass(frozen=True)
class Population:
    """Where sets come from.

    Attributes:
        combine: From sums to the score, see :class:`~analysis.scoring.aggregates.Formula`.
        draw: The units of two methods in a set of some size.
        estimate: From the units of one method or two, and their number, to the score or the
            difference.
    """

    combine: Callable[[Array], Array]
    draw: Draw
    estimate: Callable[[Sequence[Strata], int], Estimate]


def cells(repeats: int = REPEATS, *, sizes: Sequence[int] = SIZES) -> list[Cell]:
    """Scores of one method and differences of two, at sets of ``sizes`` units.

    Units are pictures, captions, or pairs of each category; ``repeats`` sets a cell.
    """
    kinds = [*itertools.product(POPULATIONS, SIDES), (AVERAGE, "difference")]
    return [
        {"score": name, "of": of, "units": units, "draws": repeats}
        for (name, of), units in itertools.product(kinds, sizes)
    ]


def readable(frame: pd.DataFrame) -> str:
    """How often the intervals hold the truth, in percent, by the units of a set."""
    import pandas as pd

    rows = []
    for (score, of), at in frame.groupby(["score", "of"], sort=False):
        named = score if score == AVERAGE else f"`{score}`"
        row = {"score": named + (", difference of two methods" if of != "score" else "")}
        for units, coverage in zip(at["units"], at["coverage"], strict=True):
            row[f"{units} units"] = f"{100 * coverage:.1f}"
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def simulate(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """One row: truth, intervals (how many sets gave one), coverage (share that holds the truth)."""
    name, sides, units = cell["score"], SIDES[cell["of"]], cell["units"]
    if name == AVERAGE:
        truths = [_truths(one) for one in POPULATIONS]
        truth = float(np.mean([(one - other) / one for one, other in truths]))
        estimates = [_average(generator, units) for _ in range(cell["draws"])]
    else:
        population, (one, other) = POPULATIONS[name], _truths(name)
        truth = one if sides == 1 else one - other
        drawn = (population.draw(generator, units)[:sides] for _ in range(cell["draws"]))
        estimates = [population.estimate(one, units) for one in drawn]
    held = [truth in one for one in estimates if one.pivot is not None]
    yield {
        "truth": truth,
        "intervals": len(held),
        "coverage": float(np.mean(held)) if held else float("nan"),
    }


def _average(generator: Generator, units: int) -> Estimate:
    """Mean difference of two methods on all populations, the first being the full cache."""
    groups = []
    for population in POPULATIONS.values():
        whole, other = population.draw(generator, units)
        sums = np.stack([stratum.sum(0) for stratum in whole])[None]
        full = float(population.combine(sums)[0])
        gap = population.estimate([whole, other], units)
        groups.append([(1 / (full * len(POPULATIONS)), gap)])
    return weighted_sum(groups, units * len(POPULATIONS))


@cache
def _truths(name: str) -> list[float]:
    """Scores of two methods in a set of :data:`LARGE` units, drawn in parts."""
    population, generator = POPULATIONS[name], np.random.default_rng(0)
    sums = [np.zeros(1), np.zeros(1)]
    for _ in range(LARGE // PART):
        drawn = population.draw(generator, PART)
        parts = [np.stack([stratum.sum(0) for stratum in side]) for side in drawn]
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
    return [float(population.combine(total[None])[0]) for total in sums]


def _chances(generator: Generator, size: int, mean: float) -> tuple[Array, Array]:
    """Chance (size,) of a right answer about each picture, of two methods."""
    chance = generator.beta(8 * mean, 8 * (1 - mean), size)
    return chance, np.maximum(chance - WORSE, 0)


def _right(generator: Generator, chances: tuple[Array, Array], questions: int) -> list[Array]:
    """Right answers (size, questions) of both methods, from the same random numbers."""
    luck = generator.random((len(chances[0]), questions))
    return [(luck < chance[:, None]).astype(float) for chance in chances]


def _pope(generator: Generator, size: int) -> tuple[Strata, Strata]:
    """Six questions a picture, the truth of every second being yes."""
    sides = []
    for right in _right(generator, _chances(generator, size, 0.85), 6):
        true, negative = right[:, ::2], right[:, 1::2]
        counts = [true.sum(1), (1 - negative).sum(1), (1 - true).sum(1)]
        sides.append([np.stack(counts, 1)])
    return sides[0], sides[1]


def _mme(generator: Generator, size: int) -> tuple[Strata, Strata]:
    """Four categories of pairs, one easier than the other."""
    sides: tuple[Strata, Strata] = [], []
    for mean in (0.6, 0.7, 0.8, 0.9):
        answers = _right(generator, _chances(generator, size, mean), 2)
        for side, right in zip(sides, answers, strict=True):
            points = right.mean(1) * 100 + right.all(1) * 100
            side.append(np.stack([points, np.ones(size)], 1))
    return sides


def _captions(generator: Generator, size: int) -> tuple[Strata, Strata]:
    """Captions of about ten words, of which a share agrees with the reference."""
    chances = _chances(generator, size, 0.6)
    length, reference = generator.integers(8, 13, (2, size))
    guesses = np.stack([length - order for order in range(4)], 1)
    luck = generator.random((size, 12, 1))
    place = np.arange(12)[None, :, None] < guesses[:, None]
    sides = []
    for chance in chances:
        agrees = (luck < chance[:, None, None] ** np.arange(1, 5)) & place
        numbers = [agrees.sum(1), guesses, length[:, None], reference[:, None]]
        sides.append([np.concatenate(numbers, 1).astype(float)])
    return sides[0], sides[1]


def _skewed(generator: Generator, size: int) -> tuple[Strata, Strata]:
    """Scores of single captions, as skewed as CIDEr's."""
    score = generator.gamma(1.2, 0.9, size)
    worse = np.maximum(0, score - generator.gamma(0.2, 0.5, size))
    one, other = (np.stack([side, np.ones(size)], 1) for side in (score, worse))
    return [one], [other]


def _mean(sums: Array) -> Array:
    total = over_strata(sums)
    return ratio(total[:, 0], total[:, 1])


def _mean_estimate(sides: Sequence[Strata], units: int) -> Estimate:
    """As :class:`~analysis.scoring.formulas.Mean` estimates: scores, or differences of pairs."""
    scores = [stratum[:, 0] for (stratum,) in sides]
    return mean_of(scores[0] if len(scores) == 1 else scores[0] - scores[1])


def _formula(name: str, draw: Draw) -> Population:
    """The population of a score of that name, estimated by its formula."""
    combine = FORMULAS[name].combine
    return Population(combine, draw, partial(jackknife, combine))


POPULATIONS: Final = {
    "pope_f1_score": _formula("pope_f1_score", _pope),
    "mme_perception_score": _formula("mme_perception_score", _mme),
    "coco_Bleu_4": _formula("coco_Bleu_4", _captions),
    "coco_CIDEr": Population(_mean, _skewed, _mean_estimate),
}
"""By the name of the score."""
