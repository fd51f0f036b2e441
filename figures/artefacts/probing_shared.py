"""What the artefacts of probing share: curves over layers with intervals, and rank correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import mean_of, rank_correlation, resampled
from figures.style import Look
from figures.verdicts import FEWEST_QUESTIONS, Outcome, Verdict, tested, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FEWEST_LAYERS: Final = 5
"""Below this many layers even a perfect order of ranks could be chance."""

MOST_TICKS: Final = 12
"""Layers that are all named on an axis."""

Values = np.ndarray[Any, np.dtype[np.float64]]


def curves(frame: pd.DataFrame, by: Sequence[str], column: str = "value") -> pd.DataFrame:
    """Mean over questions with its 95 % interval, per group.

    Returns:
        The columns ``by``, value, low, high and n; bounds are missing below two questions.
    """
    import pandas as pd

    rows = []
    for key, cell in frame.dropna(subset=[column]).groupby(list(by), sort=True, dropna=False):
        mean = mean_of(cell[column].astype(float).to_numpy())
        names = dict(zip(by, key, strict=True))
        numbers = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        rows.append({**names, **numbers})
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high", "n"])


def line(axes: Axes, data: pd.DataFrame, look: Look, label: str, shift: float = 0.0) -> None:
    """A curve over layers with its interval as a band.

    ``shift`` moves it sideways, so that curves of equal values can be told apart.
    """
    curve = data.sort_values("layer")
    x = curve["layer"] + shift
    axes.plot(x, curve["value"], look.marker, ls=look.dash, color=look.color, label=label)
    axes.fill_between(x, curve["low"], curve["high"], color=look.color, alpha=0.15, lw=0)
    layers = sorted(curve["layer"].unique())
    axes.set_xticks(layers[:: 1 + len(layers) // MOST_TICKS])
    axes.set_xlabel("layer")


def legend_under(axes: Axes, columns: int = 1) -> None:
    """The legend of one panel below it, where it hides no curve."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=columns)


def layered(frame: pd.DataFrame, columns: Sequence[str], heading: str, spec: str = ".3f") -> Any:
    """A table with one row a layer and one column a group, mean and interval as text."""
    import pandas as pd

    rows = []
    for layer in sorted(frame["layer"].unique()):
        cells = frame[frame["layer"] == layer]
        row = {("layer", ""): f"{layer:g}"}
        for one in cells.to_dict("records"):
            name = ", ".join(str(one[column]) for column in columns if not _missing(one[column]))
            row[heading, name] = f"{one['value']:z{spec}}"
            if not _missing(one["low"]):
                row[heading, name] += f" [{one['low']:z{spec}}, {one['high']:z{spec}}]"
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _missing(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def by_question(frame: pd.DataFrame, column: str = "value") -> pd.DataFrame:
    """One row per question, one column per layer, NaN where a value is missing."""
    return frame.pivot_table(index=["task", "seed", "item"], columns="layer", values=column)


def resampled_correlation(
    left: pd.DataFrame,
    right: pd.DataFrame,
    what: str,
    *,
    of_right: Callable[[Values], Values] = lambda means: means,
) -> Verdict:
    """Whether two profiles over layers agree in rank: Spearman's ρ of means over questions.

    It holds above 0, in this model: the questions are resampled, the same ones for both sides, and
    the layers are those there are. Layers follow from each other, so permuting them would find
    agreement too often.

    Args:
        left: Rows of questions.
        right: Rows of questions; those that both have count.
        what: In words.
        of_right: From the means (..., layers) of the right side to its profile.
    """
    one, other = by_question(left), by_question(right)
    shared = one.index.intersection(other.index)
    if one.shape[1] != other.shape[1] or one.shape[1] < FEWEST_LAYERS:
        return untestable(f"{what}: fewer than {FEWEST_LAYERS} layers, or other layers")
    if len(shared) < FEWEST_QUESTIONS:
        few = f"{what}: {len(shared)} questions; at least {FEWEST_QUESTIONS} are needed"
        return Verdict(Outcome.UNDECIDED, few, 1.0, 1.0)
    sides = [np.asarray(side.loc[shared].to_numpy(float)) for side in (one, other)]
    rho = resampled(
        lambda rows: rank_correlation(sides[0][rows].mean(-2), of_right(sides[1][rows].mean(-2))),
        np.zeros(len(shared)),
    )
    if rho.pivot is None:
        return untestable(f"{what}: one of the profiles does not vary")
    text = f"{what}: ρ = {rho:.2f}, {one.shape[1]} layers, {rho.n} questions"
    return tested(rho.above(0.0), rho.below(0.0), text, "the interval includes 0", rho.n)
