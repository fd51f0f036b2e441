"""What the artefacts of probing share: curves over layers with intervals, and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import mean_of, rank_correlation, resampled
from figures.artefacts.shared import pick
from figures.style import Look
from figures.verdicts import Outcome, Verdict, untestable

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
    for key, own in frame.dropna(subset=[column]).groupby(list(by), sort=True, dropna=False):
        mean = mean_of(own[column].astype(float).to_numpy())
        names = dict(zip(by, key, strict=True))
        numbers = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        rows.append({**names, **numbers})
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high", "n"])


def line(axes: Axes, data: pd.DataFrame, look: Look, label: str, shift: float = 0.0) -> None:
    """A curve over layers with its interval as a band.

    ``shift`` moves it sideways, so that curves of equal values can be told apart.
    """
    own = data.sort_values("layer")
    x = own["layer"] + shift
    axes.plot(x, own["value"], look.marker, ls=look.dash, color=look.color, label=label)
    axes.fill_between(x, own["low"], own["high"], color=look.color, alpha=0.15, lw=0)
    layers = sorted(own["layer"].unique())
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
        own = frame[frame["layer"] == layer]
        row = {("layer", ""): f"{layer:g}"}
        for one in own.to_dict("records"):
            name = ", ".join(str(one[column]) for column in columns if not _missing(one[column]))
            row[heading, name] = f"{one['value']:z{spec}}"
            if not _missing(one["low"]):
                row[heading, name] += f" [{one['low']:z{spec}}, {one['high']:z{spec}}]"
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _missing(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def by_question(frame: pd.DataFrame, column: str = "value") -> Values:
    """(questions, layers) values, NaN where there is none."""
    wide = frame.pivot_table(index=["task", "seed", "item"], columns="layer", values=column)
    return np.asarray(wide.to_numpy(float))


def resampled_correlation(left: pd.DataFrame, right: pd.DataFrame, what: str) -> Verdict:
    """Whether two profiles over layers agree in rank: Spearman's ρ of means over questions.

    The interval comes from resampling the questions, the same for both sides. It holds above 0.
    """
    one, other = by_question(left), by_question(right)
    if one.shape != other.shape or one.shape[1] < FEWEST_LAYERS:
        return untestable(f"{what}: fewer than {FEWEST_LAYERS} layers, or other questions")
    rho = resampled(
        lambda rows: rank_correlation(one[rows].mean(-2), other[rows].mean(-2)), np.zeros(len(one))
    )
    text = f"{what}: ρ = {rho:.2f}, {one.shape[1]} layers"
    return _decided(text, rho.low > 0, rho.high <= 0)


def permuted_correlation(left: Values, right: Values, what: str) -> Verdict:
    """Whether two profiles over layers agree in rank, where layers are all that can be permuted.

    Holds if ρ > 0 with a one-sided permutation p below 0.05, fails if ρ < 0 with the like.
    """
    from scipy import stats

    if len(left) < FEWEST_LAYERS or len(left) != len(right):
        return untestable(f"{what}: fewer than {FEWEST_LAYERS} layers")
    value = float(rank_correlation(left, right))
    if not np.isfinite(value):
        return untestable(f"{what}: one of the profiles does not vary")
    one, other = stats.rankdata(left), stats.rankdata(right)
    found = stats.permutation_test(
        (one,),
        # The only part of a correlation of ranks that a permutation changes.
        lambda x, axis: np.sum(x * other, axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=9999,
        alternative="greater" if value > 0 else "less",
        rng=np.random.default_rng(0),
    )
    sure = float(found.pvalue) < 0.05
    text = f"{what}: ρ = {value:.2f}, p = {found.pvalue:.3f}, {len(left)} layers"
    return _decided(text, sure and value > 0, sure and value < 0)


def _decided(text: str, holds: bool, fails: bool) -> Verdict:
    if holds:
        return Verdict(Outcome.HOLDS, text)
    if fails:
        return Verdict(Outcome.FAILS, text)
    return untestable(f"undecided: {text}")


def profile(frame: pd.DataFrame, measure: str) -> Values:
    """Values of one measure over all questions, in the order of the layers."""
    own = pick(frame[frame["item"] < 0], measure=measure).sort_values("layer")
    return np.asarray(own["value"].to_numpy(float))
