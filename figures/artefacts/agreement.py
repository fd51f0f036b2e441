"""Whether two ways of asking, or two models, agree: in ranks of methods, and in verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import QUESTION, rank_correlation, resampled
from figures.compound import all_of, any_of, reverse
from figures.verdicts import FEWEST_QUESTIONS, Verdict, correlated, untestable

if TYPE_CHECKING:
    import pandas as pd

AGREED: Final = 0.8
"""Rank correlation from which on two orders count as one."""

FEWEST_METHODS: Final = 5


def ranks_agree(one: pd.DataFrame, other: pd.DataFrame, what: str) -> Verdict:
    """Whether methods rank alike in two frames of the same questions.

    Spearman's rank correlation over the methods of both, its interval from resampled questions.
    """
    wide = [rows.pivot_table("score", list(QUESTION), "method") for rows in (one, other)]
    methods = wide[0].columns.intersection(wide[1].columns)
    items = wide[0].index.intersection(wide[1].index)
    told = f"rank correlation of {len(methods)} {what}"
    if len(methods) < FEWEST_METHODS or len(items) < FEWEST_QUESTIONS:
        fewest = f"fewer than {FEWEST_METHODS} or {FEWEST_QUESTIONS} questions"
        return untestable(f"{told}: {fewest}")
    scores = np.stack([part.loc[items, methods].to_numpy(float) for part in wide])
    tasks = items.get_level_values("task").to_numpy()

    def correlation(*groups: Any) -> Any:
        means = [scores[:, rows].mean(-2) for rows in groups]
        return rank_correlation(*np.mean(means, axis=0))

    return correlated(resampled(correlation, tasks), AGREED, told)


def say_alike(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Whether a claim holds of all that are named, or of none."""
    parts = list(verdicts.values())
    whole = any_of((all_of(parts), all_of(map(reverse, parts))))
    words = "; ".join(f"{name}: {v.outcome.value}, {v.reason}" for name, v in verdicts.items())
    return Verdict(whole.outcome, words, whole.p_holds, whole.p_fails)
