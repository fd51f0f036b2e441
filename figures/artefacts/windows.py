"""L-T5: how many windows, after a shallow and after a deep layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.asking.rows import VANILLA
from analysis.scoring.leads import lead
from figures.artefacts.layout import PrintedTable
from figures.artefacts.prefill_tables import COCO, GQA, MME, POPE, SCIENCE, VIZWIZ
from figures.artefacts.shared import (
    cell_of,
    here,
    legend_below,
    level,
    over_print,
    pick,
    planned,
    points,
    printed,
    setting,
)
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, RED, Look
from figures.tables import MISSING
from figures.verdicts import Verdict, better, equivalent, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHALLOW, DEEP = Look("shallow layer", RED, "^"), Look("deep layer", BLUE, "s", "--")
TABLE: Final = PrintedTable("L-T5", (COCO, GQA, *MME, *POPE, SCIENCE, VIZWIZ))
DRAWN: Final = tuple(column for column in TABLE.columns if not column.points)
SPAN: Final = 12.0
"""Least height of a panel in points, so that small differences look small."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval per task or score of a benchmark, layer and windows per side."""
    return TABLE.summary(frame, "layer", "windows")


def _paper() -> pd.DataFrame:
    numbers = TABLE.numbers()
    numbers["layer"] = setting(numbers, "lambda")
    numbers["windows"] = setting(numbers, "w")
    return numbers


def _depths(data: pd.DataFrame) -> dict[object, Look]:
    """The layers with their looks: the shallowest and the deepest."""
    layers = sorted(data["layer"].dropna().unique())
    return dict(zip([layers[0], layers[-1]], (SHALLOW, DEEP), strict=True)) if layers else {}


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per task or score here, then the paper's; points are in the table only."""
    shown, numbers = TABLE.asked(frame).shares(plotted(frame)), _paper()
    figure, above, below = over_print(len(shown), len(DRAWN), width=3, height=1.9)
    for place, (name, rows) in zip(above, shown, strict=True):
        for layer, look in _depths(rows).items():
            cells = pick(rows, layer=layer).sort_values("windows")
            label = f"{look.label}"
            points(place, range(len(cells)), cells, look, label=label)
        level(place, float(rows[rows["layer"].isna()]["score"].mean()))
        _finish(place, f"here: {name}", cells["windows"].map("{:g}".format))
    for place, column in zip(below, DRAWN, strict=True):
        rows = pick(numbers, benchmark=column.benchmark, metric=column.metric)
        for layer, look in (("3", SHALLOW), ("14", DEEP)):
            cells = pick(rows, layer=layer).assign(score=lambda f: f["value"])
            cells = cells.assign(low=cells["score"], high=cells["score"]).sort_values("windows")
            points(place, range(len(cells)), cells, look)
        level(place, printed(rows, method=VANILLA))
        _finish(place, f"paper: {column.title}", cells["windows"])
    legend_below(figure, above[0], 3)
    return figure


def _finish(axes: Axes, title: str, windows: pd.Series[str]) -> None:
    axes.set_title(title)
    axes.set_xticks(range(len(windows)), windows)
    axes.set_xlabel("windows per side w")
    axes.set_ylabel("score, %")
    axes.margins(x=0.12)
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, SPAN) / 2
    axes.set_ylim(middle - half, middle + half)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Ours, then the paper's: one row a depth and window count, ours and theirs side by side."""
    import pandas as pd

    data, numbers = plotted(frame), _paper()
    layers = sorted(data["layer"].dropna().unique())
    counts = sorted(data["windows"].dropna().unique())
    rows = [_row(frame, data, numbers, ("full cache", None, None, ""))]
    for layer, depth, theirs in zip(
        [layers[0], layers[-1]] if layers else [], ("shallow", "deep"), ("3", "14"), strict=False
    ):
        for windows in counts:
            rows.append(_row(frame, data, numbers, (depth, layer, windows, theirs)))
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _row(
    frame: pd.DataFrame,
    data: pd.DataFrame,
    numbers: pd.DataFrame,
    what: tuple[str, float | None, float | None, str],
) -> dict[tuple[str, str], object]:
    depth, layer, windows, theirs = what
    heading = here(frame)
    row: dict[tuple[str, str], object] = {
        ("depth", ""): depth,
        ("w", ""): MISSING if windows is None else f"{windows:g}",
        (heading, "λ"): MISSING if layer is None else f"{layer:g}",
    }
    for title, rows in TABLE.asked(frame).apart(data):
        full = rows[rows["layer"].isna()]
        cell = full if layer is None else pick(rows, layer=layer, windows=windows)
        row[heading, title] = cell_of(cell, in_percent=False)
    wanted = (
        {"method": VANILLA} if windows is None else {"layer": theirs, "windows": f"{windows:g}"}
    )
    row["paper (InternVL2-8B)", "λ"] = theirs or MISSING
    for column in TABLE.columns:
        of_column = {"benchmark": column.benchmark, "metric": column.metric}
        row["paper (InternVL2-8B)", column.title] = printed(numbers, **of_column, **wanted)
    return row


def _cells(frame: pd.DataFrame, deep: bool, windows: int) -> pd.DataFrame:
    layers = sorted(frame["layer"].dropna().unique())
    return pick(frame, layer=layers[-1 if deep else 0], windows=windows)


def _counts(frame: pd.DataFrame) -> list[int]:
    return sorted(int(count) for count in frame["windows"].dropna().unique())


def judge_global_worse(frame: pd.DataFrame) -> Verdict:
    """At the shallow layer, is one window worse than each larger number of windows?"""
    counts = _counts(frame)
    if len(counts) < 2 or counts[0] != 1:
        return untestable("one window was not compared with several")
    one = _cells(frame, False, 1)
    return all_of(
        better(
            _cells(frame, False, count),
            one,
            f"{count} x {count} windows over one, shallow",
            whole=frame[frame["method"] == VANILLA],
        )
        for count in counts[1:]
    )


def judge_too_many(frame: pd.DataFrame) -> Verdict:
    """At the shallow layer, is the largest number of windows worse than the middle one?"""
    counts = _counts(frame)
    if len(counts) < 3:
        return untestable("fewer than three window counts were compared")
    most, middle = counts[-1], counts[1]
    text = f"{middle} x {middle} windows over {most} x {most}, shallow"
    whole = frame[frame["method"] == VANILLA]
    return better(_cells(frame, False, middle), _cells(frame, False, most), text, whole=whole)


def judge_deep_alike(frame: pd.DataFrame) -> Verdict:
    """At the deep layer, do all window counts score alike?"""
    counts = _counts(frame)
    if len(counts) < 2:
        return untestable("fewer than two window counts were compared")
    one, whole = _cells(frame, True, counts[0]), frame[frame["method"] == VANILLA]
    return all_of(
        equivalent(
            lead(_cells(frame, True, count), one, whole),
            f"{count} x {count} windows against {counts[0]}, deep, difference of scores",
        )
        for count in counts[1:]
    )


WINDOW_COUNTS: Final = Artefact(
    id="L-T5",
    title="How many windows",
    source="LightKV, Table 5",
    shows="InternVL2-8B with one merging stage after a shallow (λ = 3) or deep (λ = 14) layer, in "
    "1, 2 or 4 windows per side.",
    study="window_sweep",
    planned=planned(256),
    seconds=40,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "At a shallow layer one global window is worse than several.",
            "LightKV, Section 5 on Table 5",
            judge_global_worse,
            "paired difference of scores over all tasks above 0 for every larger count",
            main=True,
        ),
        Claim(
            "Too many windows at a shallow layer are worse again.",
            "LightKV, Section 5 on Table 5",
            judge_too_many,
            "paired difference, middle count minus largest, above 0 over all tasks",
        ),
        Claim(
            "At a deep layer the number of windows hardly matters.",
            "LightKV, Section 5 on Table 5",
            judge_deep_alike,
            "differences to one window within 5 points, interval included, over all tasks",
        ),
    ),
    caption="Score against windows per side after a shallow and a deep layer, first ours with "
    "95 % intervals, then the paper's print. Dotted: full cache. MME is in the table only.",
    explanation="More windows keep a merge among near neighbours; one window lets any two tokens "
    "merge. Half of the tokens merge away in every case. The paper's own table is not uniform: at "
    "λ = 3 its GQA is best with one window.",
    alt="Line charts of score against window count for a shallow and a deep layer, ours above the "
    "paper's.",
    paper="L-T5",
    benchmarks=TABLE.benchmarks,
)
