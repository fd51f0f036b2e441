"""T-T1: budgets, rankings and which modality leaves first, each varied alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from figures.artefacts.columns import Column
from figures.artefacts.layout import PrintedTable
from figures.artefacts.published import CHARTQA, TEXTVQA_LITE
from figures.artefacts.shared import (
    TIGHT_RULE,
    cell_of,
    here,
    level,
    pick,
    planned,
    points,
    printed,
    setting,
    tight,
    where_testable,
)
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, GREEN, GREY, RED, Look, canvas
from figures.verdicts import Verdict, better, collapses, keeps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCKS: Final = {
    "a": "(a) budget of a layer",
    "b": "(b) ranking of entries",
    "c": "(c) leaves first, at random",
}
VARIANTS: Final = {
    ("a", "uniform"): Look("uniform", GREY, "v", "--"),
    ("a", "VV"): Look("VV", BLUE, "s", "-."),
    ("a", "TT"): Look("TT", GREEN, "D", ":"),
    ("a", "TV"): Look("TV (TGV-KV)", RED, "^"),
    ("b", "observation-window"): Look("observation window", GREY, "v", "--"),
    ("b", "self-attention"): Look("self-attention", BLUE, "s", "-."),
    ("b", "VV+TT"): Look("VV+TT", GREEN, "D", ":"),
    ("b", "TV+TT"): Look("TV+TT (TGV-KV)", RED, "^"),
    ("c", "vision"): Look("vision (TGV-KV)", RED, "^"),
    ("c", "text"): Look("text", BLUE, "s", "-."),
}
DODGE: Final = {"v": -0.09, "s": -0.03, "D": 0.03, "^": 0.09}
"""Lines of one panel stand a little apart, so that equal scores can be told from one line."""

FIELD: Final = {"a": "budget", "b": "criterion", "c": "evict-first"}
TABLE: Final = PrintedTable(
    "T-T1",
    (
        Column("chartqa", "score", "ChartQA", published=CHARTQA),
        Column("textvqa-lite", "score", "TextVQA-lite", published=TEXTVQA_LITE),
    ),
)
AMPLE: Final = 0.2
COLLAPSED: Final = 0.5
GENTLE: Final = 0.5


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval per task or benchmark, block, variant and retention."""
    return TABLE.summary(frame, "block", "variant", "retention")


def _paper() -> pd.DataFrame:
    """The printed scores with block, variant and retention apart."""
    numbers = TABLE.numbers()
    numbers["block"] = setting(numbers, "block")
    numbers["retention"] = setting(numbers, "retention").str.rstrip("%").astype(float) / 100
    numbers["variant"] = "vanilla"
    for block, field in FIELD.items():
        of_block = numbers["block"] == block
        numbers.loc[of_block, "variant"] = setting(numbers, field)[of_block]
    return numbers


def draw(frame: pd.DataFrame) -> Figure:
    """One row of panels per task or benchmark here, then one per benchmark of the paper."""
    shown, numbers = TABLE.asked(frame).panels(plotted(frame)), _paper()
    figure, axes = canvas(len(shown) + len(TABLE.columns), 3, height=1.95, sharey="row")
    for row, (title, cells) in zip(axes, shown, strict=False):
        _row(row, cells, f"here: {title}")
    for row, column in zip(axes[len(shown) :], TABLE.columns, strict=True):
        cells = pick(numbers, benchmark=column.benchmark)
        cells = cells.assign(score=cells["value"] / 100)
        cells = cells.assign(low=cells["score"], high=cells["score"])
        _row(row, cells, f"paper: {column.title}")
    for place, title in zip(axes[0], BLOCKS.values(), strict=True):
        place.set_title(title)
    for place in axes[-1]:
        place.set_xlabel("KV retained, %")
        place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=1)
    return figure


def _row(axes: list[Axes], data: pd.DataFrame, title: str) -> None:
    """The three blocks of one task."""
    retentions = sorted(pick(data, block=list(BLOCKS))["retention"].unique())
    places = {retention: place for place, retention in enumerate(retentions)}
    full = pick(data, variant="vanilla")
    for axis, block in zip(axes, BLOCKS, strict=True):
        for (group, variant), look in VARIANTS.items():
            cells = pick(data, block=block, variant=variant).sort_values("retention")
            if group == block and len(cells):
                points(
                    axis, [places[r] + DODGE[look.marker] for r in cells["retention"]], cells, look
                )
        if len(full):
            level(axis, float(full["score"].mean()))
        axis.set_xticks(range(len(retentions)), [f"{100 * r:g}" for r in retentions])
        axis.set_ylim(bottom=-2)
    axes[0].set_ylabel(f"{title}\nscore, %")


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Our scores beside the paper's, one row a variant and retention."""
    import pandas as pd

    data, numbers = plotted(frame), _paper()
    rows = []
    for (block, variant), look in {("", "vanilla"): None, **VARIANTS}.items():
        for retention in sorted(pick(data, block=list(BLOCKS))["retention"].unique(), reverse=True):
            wanted = {"variant": variant} | ({"block": block} if block else {})
            row: dict[tuple[str, str], object] = {
                ("block", ""): BLOCKS.get(block, "full cache"),
                ("variant", ""): look.label if look else "vanilla",
                ("KV retained, %", ""): f"{100 * retention:g}",
            }
            for title, cells in TABLE.asked(frame).apart(data):
                cell = pick(cells, **wanted)
                cell = cell[cell["retention"].isin([retention]) | (not block)]
                row[here(frame), f"{title}, %"] = cell_of(cell)
            for column in TABLE.columns:
                value = printed(numbers, benchmark=column.benchmark, retention=retention, **wanted)
                row["paper (LLaVA-1.5-7B)", f"{column.title}, %"] = value
            rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _rows(frame: pd.DataFrame, block: str, variant: str, retention: float) -> pd.DataFrame:
    return pick(frame, block=block, variant=variant, retention=retention)


def judge_budget(frame: pd.DataFrame) -> Verdict:
    """Do TV budgets beat each of the others at tight budgets?"""
    return _leads(frame, "a", "TV", ("uniform", "VV", "TT"), tight(frame))


def _leads(
    frame: pd.DataFrame, block: str, one: str, others: tuple[str, ...], budgets: Sequence[float]
) -> Verdict:
    """Does a variant beat each of the others, at the budgets at which that can be seen?"""
    parts: list[Verdict] = []
    for other in others:
        parts += where_testable(
            better(
                _rows(frame, block, one, retention),
                _rows(frame, block, other, retention),
                f"{one} over {other} at {100 * retention:g} %",
                whole=pick(frame, variant="vanilla"),
            )
            for retention in budgets
        )
    return all_of(parts)


def judge_ranking(frame: pd.DataFrame) -> Verdict:
    """Does the TV+TT ranking beat each of the others at tight budgets?"""
    others = ("observation-window", "self-attention", "VV+TT")
    return _leads(frame, "b", "TV+TT", others, tight(frame))


def judge_ranking_ample(frame: pd.DataFrame) -> Verdict:
    """Does it beat those that read vision rows at 20 % too?"""
    return _leads(frame, "b", "TV+TT", ("self-attention", "VV+TT"), [AMPLE])


def judge_window(frame: pd.DataFrame) -> Verdict:
    """Does the observation window lose at least half of the score at tight budgets?"""
    name, what = "observation-window", "observation window"
    return _share(frame, "b", name, what, collapses, COLLAPSED, tight(frame))


def judge_text_first(frame: pd.DataFrame) -> Verdict:
    """Does evicting text first lose at least half of the score at every retention?"""
    return _share(frame, "c", "text", "text first", collapses, COLLAPSED, _retentions(frame))


def judge_vision_first(frame: pd.DataFrame) -> Verdict:
    """Does evicting vision first keep at least half of the score at every retention?"""
    return _share(frame, "c", "vision", "vision first", keeps, GENTLE, _retentions(frame))


def _retentions(frame: pd.DataFrame) -> list[float]:
    """Budgets at which the order of eviction was varied, ample ones first."""
    return sorted(pick(frame, block="c")["retention"].unique(), reverse=True)


def _share(
    frame: pd.DataFrame,
    block: str,
    variant: str,
    what: str,
    rule: Callable[[pd.DataFrame, pd.DataFrame, float, str], Verdict],
    bound: float,
    budgets: Sequence[float],
) -> Verdict:
    """Does a variant keep at least, or at most, a share of the full cache's score at budgets?"""
    return all_of(
        rule(
            _rows(frame, block, variant, retention),
            pick(frame, variant="vanilla"),
            bound,
            f"{what} at {100 * retention:g} %, share of the full cache's score",
        )
        for retention in budgets
    )


BUDGETS_RANKINGS_RETENTION: Final = Artefact(
    id="T-T1",
    title="Budgets, rankings and which modality leaves first",
    source="TGV-KV, Table 1",
    shows="LLaVA-1.5-7B at three budgets: (a) how a layer's budget is set, (b) how entries are "
    "ranked, (c) whether vision or text leaves first, each varied alone.",
    study="budget_ranking_retention_pilot",
    planned=planned(800, retentions=(0.5, 0.2, 0.117, 0.05)),
    seconds=100,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Budgets by text-vision attention beat uniform, VV and TT budgets at 5 %.",
            "TGV-KV, Table 1 (a)",
            judge_budget,
            f"paired difference of scores above 0 against each of them; {TIGHT_RULE}",
            main=True,
        ),
        Claim(
            "Ranking by TV+TT beats the observation window, self-attention and VV+TT at 5 %.",
            "TGV-KV, Table 1 (b)",
            judge_ranking,
            f"paired difference of scores above 0 against each of them; {TIGHT_RULE}",
            main=True,
        ),
        Claim(
            "Ranking by TV+TT beats self-attention and VV+TT at 20 % too.",
            "TGV-KV, Table 1 (b)",
            judge_ranking_ample,
            "paired difference of scores above 0 against each of them",
        ),
        Claim(
            "Ranking by an observation window collapses at 5 %.",
            "TGV-KV, Table 1 (b)",
            judge_window,
            "at most half of the full cache's score; where it was asked, also with as many entries "
            "as the paper's 5 %",
        ),
        Claim(
            "Evicting text first collapses at every budget.",
            "TGV-KV, Table 1 (c)",
            judge_text_first,
            "at most half of the full cache's score at each retention",
            main=True,
        ),
        Claim(
            "Evicting vision first degrades gently.",
            "TGV-KV, Table 1 (c)",
            judge_vision_first,
            "at least half of the full cache's score at each retention",
        ),
    ),
    caption="Score against KV retained, upper rows ours with 95 % intervals, lower rows the "
    "paper's print. Dotted: full cache.",
    explanation="Compare the order of the lines within a panel, not heights across rows: model and "
    "tasks differ. With --benchmarks the tasks are the paper's, by the scores of T-T2, whose row "
    "of the full cache is printed again here. Blocks (a) and (b) share the configuration uniform "
    "budget with TV+TT ranking; the paper prints different numbers for it in the two blocks. "
    "Budgets are shares: 5 % of the embedded model's short prompts is about 14 entries a layer, "
    "hardly more than the question, where the paper's 5 % is about 32; near the floor "
    "nothing can be told apart.",
    alt="Line charts of score against retention for budgets, rankings and eviction order, ours "
    "above the paper's.",
    paper="T-T1",
    benchmarks=TABLE.benchmarks,
)
