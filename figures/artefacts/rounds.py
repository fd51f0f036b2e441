"""Times of methods that answered in turns: ratios within a round, and what all rounds say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from figures.verdicts import Verdict, undecided, verdict

if TYPE_CHECKING:
    import pandas as pd


def ratios(runs: pd.DataFrame, measure: str, by: str, one: Any, other: Any) -> pd.Series[float]:
    """A measure of one setting over that of another, in every round that has both.

    Args:
        runs: Rows with ``piece`` (what was measured in turns) and ``repeat`` (the round).
        measure: Column that is compared.
        by: Column of the setting.
        one, other: Values of it.
    """
    times = runs.pivot_table(measure, ["piece", "repeat"], by).reindex(columns=[one, other])
    ratio: pd.Series[float] = (times[one] / times[other]).dropna()
    return ratio


def spread(values: pd.Series[float]) -> str:
    """Median and range."""
    return f"{values.median():.4g} ({values.min():.4g} to {values.max():.4g})"


def in_words(ratio: pd.Series[float]) -> str:
    """Median and range of ratios to the full cache's, and how many rounds there were."""
    return (
        f"{ratio.median():.3f} of the full cache's "
        f"({ratio.min():.3f} to {ratio.max():.3f}, {len(ratio)} rounds)"
    )


def in_every_round(within: pd.Series[bool], reason: str) -> Verdict:
    """Whether something is so in every round; undecided if in some only."""
    if within.any() and not within.all():
        return undecided(f"rounds differ: {reason}")
    return verdict(bool(within.all()), reason)
