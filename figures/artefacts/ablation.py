"""T-T5: every combination of TGV-KV's three parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.asking.rows import VANILLA
from analysis.scoring.leads import lead
from figures.artefacts.columns import Column
from figures.artefacts.layout import PrintedTable
from figures.artefacts.published import CHARTQA, coco
from figures.artefacts.shared import (
    TIGHT_RULE,
    cell_of,
    here,
    legend_below,
    pick,
    planned,
    printed,
    setting,
    tight,
    where_testable,
)
from figures.compound import all_of, worst_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, GREEN, RED, Look, canvas
from figures.verdicts import Verdict, better, not_beaten

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS: Final = ("tvb", "twr", "tpr")
AMPLE: Final = 0.2
LOOKS: Final = {
    AMPLE: Look("20 % retained", BLUE, "s"),
    0.117: Look("11.7 % retained, the entries of the paper's 5 %", GREEN, "D"),
    0.05: Look("5 % retained", RED, "^"),
}
TABLE: Final = PrintedTable(
    "T-T5",
    (
        Column("chartqa", "score", "ChartQA", published=CHARTQA),
        Column("coco-caption", "score", "COCO, ROUGE-L", published=coco("ROUGE_L")),
    ),
)
COMBINATIONS: Final = tuple(
    (tvb, twr, tpr) for twr in (False, True) for tvb in (False, True) for tpr in (False, True)
)
FULL: Final = (True, True, True)


def name(combination: tuple[bool, ...]) -> str:
    """A combination in words."""
    on = [part.upper() for part, used in zip(PARTS, combination, strict=True) if used]
    return " + ".join(on) or "none"


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval per task or benchmark, combination and retention."""
    return TABLE.summary(frame, *PARTS, "retention")


def _paper() -> pd.DataFrame:
    """The printed scores with parts and retention apart."""
    numbers = pick(TABLE.numbers(), metric="score")
    for part in PARTS:
        numbers[part] = setting(numbers, part.upper()) == "1"
    numbers["retention"] = setting(numbers, "retention").str.rstrip("%").astype(float) / 100
    return numbers


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per task, ours above the paper's; one row of dots per combination."""
    shown, numbers = TABLE.asked(frame).panels(plotted(frame)), _paper()
    figure, axes = canvas(2, max(len(shown), len(TABLE.columns)), height=2.5, sharey=True)
    for place, (title, cells) in zip(axes[0], shown, strict=False):
        _panel(place, cells, f"here: {title}")
        for score in cells[cells["tvb"].isna()]["score"]:
            place.axvline(100 * score, color="#000000", linestyle=":", label="full cache")
            place.set_xlim(-2, max(102 * score, place.get_xlim()[1]))
    for place, column in zip(axes[1], TABLE.columns, strict=False):
        cells = pick(numbers, benchmark=column.benchmark)
        cells = cells.assign(score=cells["value"] / 100)
        cells = cells.assign(low=cells["score"], high=cells["score"])
        _panel(place, cells, f"paper: {column.title}")
    for place in [*axes[0, len(shown) :], *axes[1, len(TABLE.columns) :]]:
        place.set_visible(False)
    for place in axes[-1]:
        place.set_xlabel("score, %")
    legend_below(figure, axes[0, 0], 3)
    return figure


def _panel(axes: Axes, data: pd.DataFrame, title: str) -> None:
    """Dots of every combination at both retentions."""
    budgets = _budgets(data)
    for number, retention in enumerate(budgets):
        look, shift = LOOKS[retention], 0.12 * (len(budgets) - 1 - 2 * number)
        for place, combination in enumerate(reversed(COMBINATIONS)):
            wanted = dict(zip(PARTS, combination, strict=True))
            cell = pick(data, retention=retention, **wanted)
            if cell.empty:
                continue
            first = 100 * cell[["score", "low", "high"]].iloc[0]
            axes.hlines(place + shift, first["low"], first["high"], color=look.color, linewidth=1)
            axes.plot(
                first["score"], place + shift, look.marker, color=look.color, label=look.label
            )
    axes.set_yticks(range(len(COMBINATIONS)), [name(c) for c in reversed(COMBINATIONS)])
    axes.set_xlim(left=-2)
    axes.set_title(title)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Our scores beside the paper's, one row a combination."""
    import pandas as pd

    data, numbers = plotted(frame), _paper()
    rows = []
    for combination in COMBINATIONS:
        parts = dict(zip(PARTS, combination, strict=True))
        row: dict[tuple[str, str], object] = {("parts", ""): name(combination)}
        for title, cells in TABLE.asked(frame).apart(data):
            for retention in _budgets(data):
                cell = pick(cells, retention=retention, **parts)
                row[here(frame), f"{title} at {100 * retention:g} %"] = cell_of(cell)
        for column in TABLE.columns:
            for retention in _budgets(numbers):
                wanted = {"benchmark": column.benchmark, "retention": retention, **parts}
                heading = f"{column.title} at {100 * retention:g} %"
                row["paper (LLaVA-1.5-7B)", heading] = printed(numbers, **wanted)
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _budgets(frame: pd.DataFrame) -> list[float]:
    """Shares of the cache that were asked, or printed."""
    return [retention for retention in LOOKS if retention in set(frame["retention"])]


def _rows(frame: pd.DataFrame, combination: tuple[bool, ...], retention: float) -> pd.DataFrame:
    wanted = dict(zip(PARTS, combination, strict=True))
    return pick(frame[frame["method"] != VANILLA], retention=retention, **wanted)


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["method"] == VANILLA]


def _gain(
    frame: pd.DataFrame, one: tuple[bool, ...], other: tuple[bool, ...], retention: float
) -> Verdict:
    text = f"{name(one)} over {name(other)} at {100 * retention:g} %"
    rows, others = _rows(frame, one, retention), _rows(frame, other, retention)
    return better(rows, others, text, whole=_whole(frame))


def judge_ranking_leads(frame: pd.DataFrame) -> Verdict:
    """Is TWR alone better than no part and than TVB alone, at 20 % and at tight budgets?"""
    twr, tvb, none = (False, True, False), (True, False, False), (False, False, False)
    parts = [_gain(frame, twr, other, AMPLE) for other in (none, tvb)]
    for other in (none, tvb):
        parts += where_testable(_gain(frame, twr, other, r) for r in tight(frame))
    return all_of(parts)


def judge_retention_matters(frame: pd.DataFrame) -> Verdict:
    """Does TPR add to TVB + TWR at tight budgets?"""
    without = (True, True, False)
    return all_of(where_testable(_gain(frame, FULL, without, r) for r in tight(frame)))


def judge_budget_adds(frame: pd.DataFrame) -> Verdict:
    """Does TVB add to TWR + TPR at 20 %?"""
    return _gain(frame, FULL, (False, True, True), AMPLE)


def judge_whole_is_best(frame: pd.DataFrame) -> Verdict:
    """Is no other combination better than all three parts by more than the margin?"""
    verdicts = []
    for retention in _budgets(frame):
        for combination in COMBINATIONS:
            if combination == FULL:
                continue
            rows, full = _rows(frame, combination, retention), _rows(frame, FULL, retention)
            text = f"{name(combination)} over all three at {100 * retention:g} %"
            verdicts.append(not_beaten(lead(rows, full, _whole(frame)), text))
    return worst_of(verdicts)


COMPONENTS: Final = Artefact(
    id="T-T5",
    title="Ablation of TGV-KV's three parts",
    source="TGV-KV, Table 5",
    shows="LLaVA-1.5-7B with every combination of text-vision budgeting (TVB), text-weighted "
    "ranking (TWR) and text-prioritised retention (TPR), at 20 and 5 % retention.",
    study="component_ablation",
    planned=planned(800, retentions=(0.2, 0.117, 0.05)),
    seconds=55,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "TWR gives most of the gain.",
            "TGV-KV, Section 5 on Table 5",
            judge_ranking_leads,
            f"TWR alone scores above no part and above TVB alone, at 20 and at 5 %; {TIGHT_RULE}",
            main=True,
        ),
        Claim(
            "TPR matters at a tight budget.",
            "TGV-KV, Section 5 on Table 5",
            judge_retention_matters,
            f"all three parts score above TVB + TWR at 5 %; {TIGHT_RULE}",
            main=True,
        ),
        Claim(
            "TVB adds a little when the budget is ample.",
            "TGV-KV, Section 5 on Table 5",
            judge_budget_adds,
            "all three parts score above TWR + TPR at 20 %",
        ),
        Claim(
            "All three parts together are best.",
            "TGV-KV, Table 5",
            judge_whole_is_best,
            "no other combination leads by more than 5 points (upper bound), none leads surely",
        ),
    ),
    caption="Score of every combination at two budgets, upper row ours with 95 % intervals, lower "
    "row the paper's print. Dotted: full cache.",
    explanation="A combination's name lists the parts in use. Without TVB every layer gets the "
    "same budget, without TWR entries are ranked by accumulated self-attention, without TPR "
    "vision and text compete by score. Compare the order of the rows, not heights: model and "
    "tasks differ. With --benchmarks the tasks are the paper's, by the scores of T-T2 and T-T3, "
    "whose rows of TGV-KV are printed again here.",
    alt="Dot plots of the scores of eight combinations at two budgets, ours above the paper's.",
    paper="T-T5",
    benchmarks=TABLE.benchmarks,
)
