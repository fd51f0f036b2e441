"""Scores of published benchmarks as formulas, by the names that their harness gives them.

Names and definitions are those of lmms-eval; an outcome is what its ``process_results`` returns for
one question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from analysis.scoring import captions
from analysis.scoring.aggregates import Array, Formula, over_strata, ratio
from analysis.scoring.estimate import LEVEL, Estimate
from analysis.scoring.intervals import difference, mean_of
from lightkv.errors import InputError

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Mean(Formula):
    """The mean of a score that each question has; intervals are those of all means."""

    def estimate(
        self,
        outcomes: Sequence[Any],
        pictures: Sequence[str],
        *,
        level: float = LEVEL,
    ) -> Estimate:
        return mean_of(self.scores(outcomes), pictures=pictures, level=level)

    def difference(
        self,
        one: Sequence[Any],
        other: Sequence[Any],
        pictures: Sequence[str],
        *,
        share: float = 1.0,
        level: float = LEVEL,
    ) -> Estimate:
        import pandas as pd

        named = {"item": range(len(pictures)), "picture": pictures}
        first, second = (pd.DataFrame(named | {"score": self.scores(x)}) for x in (one, other))
        return difference(first, second, share=share, level=level)

    def scores(self, outcomes: Sequence[Any]) -> list[float]:
        """The score of each question of a set.

        Raises:
            InputError: There is no outcome.
        """
        if not outcomes:
            raise InputError(f"{self.name} needs at least one answer")
        return [float(self.columns([one])[0]) for one in self.prepare(outcomes)]


def mean(
    name: str,
    score: Callable[[Any], float] = float,
    prepare: Callable[[Sequence[Any]], Sequence[Any]] = list,
) -> Mean:
    """The mean of a score that each question has.

    Args:
        name: Of the score.
        score: From what is prepared of an outcome to a number.
        prepare: See :class:`~analysis.scoring.aggregates.Formula`.
    """

    def columns(unit: Sequence[Any]) -> Sequence[float]:
        return sum(score(outcome) for outcome in unit), len(unit)

    def combine(sums: Array) -> Array:
        total = over_strata(sums)
        return ratio(total[:, 0], total[:, 1])

    return Mean(name, columns, combine, prepare)


# ------------------------------------------------------------------ POPE


def _confusion(unit: Sequence[Outcome]) -> Sequence[float]:
    """True and false positives, false negatives; anything but "yes" and "no" is none of them."""
    pairs = [(str(one["ground_truth"]), str(one["prediction"])) for one in unit]
    return [pairs.count(("yes", "yes")), pairs.count(("no", "yes")), pairs.count(("yes", "no"))]


def _precision(sums: Array) -> Array:
    true, false, _ = over_strata(sums).T
    return ratio(true, true + false)


def _recall(sums: Array) -> Array:
    true, _, missed = over_strata(sums).T
    return ratio(true, true + missed)


def _f1(sums: Array) -> Array:
    precision, recall = _precision(sums), _recall(sums)
    return ratio(2 * precision * recall, precision + recall)


# ------------------------------------------------------------------ MME


def _pair(unit: Sequence[Outcome]) -> Sequence[float]:
    """Points of a picture: accuracy of its two questions in percent, and 100 more for both."""
    right = sum(float(one["score"]) for one in unit)
    return right / len(unit) * 100 + (right == len(unit)) * 100, 1


def _over_categories(sums: Array) -> Array:
    points: Array = ratio(sums[..., 0], sums[..., 1]).sum(axis=1)
    return points


def _mme(name: str) -> Formula:
    return Formula(
        name,
        _pair,
        _over_categories,
        unit=lambda outcome: str(outcome["question_id"]),
        stratum=lambda outcome: str(outcome["category"]),
        whole_units=2,
    )


# ------------------------------------------------------------------ captions


def _bleu(order: int, sums: Array) -> Array:
    return captions.bleu(over_strata(sums), order)


def _sum(unit: Sequence[Sequence[float]]) -> Sequence[float]:
    return [math.fsum(column) for column in zip(*unit, strict=True)]


def caption_formulas(prefix: str) -> list[Formula]:
    """Scores of a set of captions: BLEU of four orders, ROUGE-L, CIDEr with frequencies fixed."""
    return [
        *(
            Formula(
                f"{prefix}_Bleu_{order}",
                _sum,
                partial(_bleu, order),
                prepare=captions.bleu_counts,
            )
            for order in captions.ORDERS
        ),
        mean(f"{prefix}_ROUGE_L", prepare=captions.rouge_scores),
        mean(f"{prefix}_CIDEr", prepare=captions.cider_scores),
    ]


# ------------------------------------------------------------------ by name


def _right_choice(outcome: Outcome) -> float:
    return float(str(outcome["pred"]).lower().strip() == str(outcome["answer"]).lower().strip())


def _said_yes(outcome: Outcome) -> float:
    return float(outcome["ground_truth"] == "yes")


FORMULAS: Final[dict[str, Formula]] = {
    formula.name: formula
    for formula in (
        mean("pope_accuracy", lambda outcome: float(outcome["score"])),
        Formula("pope_precision", _confusion, _precision),
        Formula("pope_recall", _confusion, _recall),
        Formula("pope_f1_score", _confusion, _f1),
        mean("pope_yes_ratio", _said_yes),
        _mme("mme_perception_score"),
        _mme("mme_cognition_score"),
        _mme("mme_score"),
        mean("seed_image", _right_choice),
        mean("seed_video", _right_choice),
        mean("seed_all", _right_choice),
        *caption_formulas("coco"),
        *caption_formulas("nocaps"),
        *caption_formulas("textcaps"),
    )
}


SUMS: Final = {"mme_score": ("mme_perception_score", "mme_cognition_score")}
"""Scores that the harness does not name: each over the outcomes of several others together."""


def formula(name: str, outcomes: Sequence[Any]) -> Formula | None:
    """The formula of a score, None where it has none.

    Args:
        name: Of the score, as the harness calls it, or of :data:`SUMS`.
        outcomes: What it is computed from; if they are numbers it is their mean.
    """
    if outcomes and all(isinstance(one, int | float) for one in outcomes):
        return mean(name)
    return FORMULAS.get(name)
