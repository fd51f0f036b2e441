"""X-5: effective rank, feature divergence, and what merging would lose, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.scoring.intervals import difference, mean
from figures.artefacts.probing_shared import curves, layered, legend_under, line
from figures.artefacts.shared import here, pick
from figures.contract import Artefact, Claim
from figures.style import canvas, nth
from figures.verdicts import Verdict, above, at_most, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RANK, DIVERGENCE, ERROR = "effective_rank", "feature_divergence", "merge_error"
TOLERABLE: Final = 0.1
"""Share of the vision states' variance that merging half of them may take."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank per kind, median divergence and merging error per window count, by layer."""
    import pandas as pd

    median = pick(frame, measure=DIVERGENCE)
    median = median[median["quantile"] == 0.5]
    parts = [
        curves(pick(frame, measure=RANK), ("layer", "kind")).assign(measure=RANK),
        curves(median, ("layer", "windows")).assign(measure=DIVERGENCE),
        curves(pick(frame, measure=ERROR), ("layer", "windows")).assign(measure=ERROR),
    ]
    return pd.concat(parts, ignore_index=True)


def draw(frame: pd.DataFrame) -> Figure:
    """Three panels over layers."""
    data = plotted(frame)
    figure, axes = canvas(1, 3, height=3.2)
    for index, kind in enumerate(("vision", "text")):
        line(axes[0, 0], pick(data, measure=RANK, kind=kind), nth(index), kind)
    for place, measure in ((axes[0, 1], DIVERGENCE), (axes[0, 2], ERROR)):
        cells = pick(data, measure=measure)
        for index, windows in enumerate(sorted(cells["windows"].dropna().unique())):
            label = "whole image" if windows == 1 else f"{windows:g} × {windows:g} windows"
            line(place, pick(cells, windows=windows), nth(index + 2), label)
    titles = ("effective rank", "feature divergence, median", "error of merging half")
    labels = ("directions", "1 − cosine", "share of the variance")
    for place, title, label in zip(axes[0], titles, labels, strict=True):
        place.set_title(title)
        place.set_ylabel(label)
        place.set_ylim(bottom=0)
        legend_under(place)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The plotted numbers, one row a layer."""
    data = plotted(frame)
    shown = data.assign(
        windows=data["windows"].map(lambda count: f"{count:g} windows", na_action="ignore")
    )
    names = {RANK: "effective rank", DIVERGENCE: "divergence", ERROR: "merging error"}
    shown["measure"] = shown["measure"].map(names)
    by_layer: pd.DataFrame = layered(shown, ("measure", "kind", "windows"), here(frame))
    return by_layer


def _by_windows(frame: pd.DataFrame, measure: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Rows of the whole image and of the most windows."""
    cells = pick(frame, measure=measure)
    if measure == DIVERGENCE:
        cells = cells[cells["quantile"] == 0.5]
    counts = sorted(cells["windows"].dropna().unique())
    if len(counts) < 2 or counts[0] != 1:
        return None
    return pick(cells, windows=1), pick(cells, windows=counts[-1])


def judge_redundant(frame: pd.DataFrame) -> Verdict:
    """Can half of the vision tokens go at little loss?"""
    whole = pick(frame, measure=ERROR, windows=1)
    return at_most(mean(whole, "value"), TOLERABLE, "share of the variance lost, all layers")


def judge_local(frame: pd.DataFrame) -> Verdict:
    """Are tokens of a window more alike than tokens of the whole image?"""
    sides = _by_windows(frame, DIVERGENCE)
    if sides is None:
        return untestable("only one window count was looked at")
    return above(difference(*sides, "value"), 0.0, "median divergence, whole image minus windows")


def judge_windows(frame: pd.DataFrame) -> Verdict:
    """Does merging within windows lose more than merging over the whole image?"""
    sides = _by_windows(frame, ERROR)
    if sides is None:
        return untestable("only one window count was looked at")
    return above(difference(sides[1], sides[0], "value"), 0.0, "error, windows minus whole image")


REDUNDANCY: Final = Artefact(
    id="X-5",
    title="Redundancy of vision tokens",
    source="Our own",
    shows="Not in the papers: the redundancy that merging lives on, by layer and window count.",
    study="redundancy_profile",
    seconds=20,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Vision tokens are redundant: half of them can be merged at little loss.",
            "LightKV, Section 1",
            judge_redundant,
            "at most a tenth of the vision states' variance is lost, mean over layers",
        ),
        Claim(
            "Tokens of one window are more alike than tokens of the whole image.",
            "LightKV, Section 3 on windows",
            judge_local,
            "median divergence, whole image minus the smallest windows, above 0",
        ),
        Claim(
            "Windows cost reconstruction: the whole image offers better partners.",
            "Ours, on LightKV, Table 9",
            judge_windows,
            "paired difference of the error, most windows minus whole image, above 0",
        ),
    ),
    caption="Effective rank of centred states; median feature divergence (LightKV, Eq. 5) between "
    "patches of a window; share of the vision states' variance that one stage of merging half of "
    "them would take. Bands: 95 % intervals over questions.",
    explanation="Nothing is merged here: each layer is asked what a stage after it would lose. "
    "Small windows save comparisons and keep merges local; the error says what that costs.",
    alt="Three panels of curves over layers: effective rank, feature divergence, merging error.",
)
