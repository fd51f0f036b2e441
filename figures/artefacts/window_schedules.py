"""L-T9: what the schedule of windows does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.columns import Column
from figures.artefacts.prefill_tables import COCO, GQA, MME, NOCAPS, POPE, SCIENCE, SEED, VIZWIZ
from figures.artefacts.score_tables import HERE, title
from figures.artefacts.shared import (
    cell_of,
    here,
    legend_below,
    level,
    pick,
    planned,
    points,
    short,
    summary,
)
from figures.contract import Artefact, Claim
from figures.style import BLUE, ORANGE, Look, canvas
from figures.tables import MISSING
from figures.verdicts import Verdict, alike, keeps, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS: Final = (
    *(COCO, Column("docvqa", "score", "DocVQA", "embedded/read"), GQA, *MME, NOCAPS, *POPE),
    *(SCIENCE, SEED, VIZWIZ),
)
LOOKS: Final = (Look("W = 4,2,1", BLUE, "s"), Look("W = 6,4,2", ORANGE, "D"))
PRESERVED: Final = 0.98
_SLANTED: Final = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval per task and schedule."""
    return summary(frame, ("task", "windows"))


def draw(frame: pd.DataFrame) -> Figure:
    """Scores by task for both schedules, ours and the paper's."""
    from figures import paper

    data, numbers = plotted(frame), paper.numbers("L-T9")
    tasks = list(dict.fromkeys(data["task"]))
    models = list(dict.fromkeys(numbers["model"]))
    figure, axes = canvas(1, 1 + len(models), height=3.0)
    schedules = [name for name in dict.fromkeys(data["windows"]) if name]
    first = axes[0, 0]
    for place, (look, windows) in enumerate(zip(LOOKS, schedules, strict=False)):
        cells = pick(data, windows=windows).set_index("task").reindex(tasks)
        x = [number + 0.2 * place - 0.1 for number in range(len(tasks))]
        points(first, x, cells, look, label=f"W = {windows}", joined=False)
    for number, task in enumerate(tasks):
        full = pick(data, task=task, windows="")["score"]
        first.plot([number - 0.35, number + 0.35], [100 * full.iloc[0]] * 2, "k:", lw=1.2)
    first.set_xticks(range(len(tasks)), [short(task) for task in tasks], **_SLANTED)
    first.set_ylabel("score, %")
    first.set_title(HERE)
    shown = [column for column in COLUMNS if column.benchmark != "mme"]
    for place, model in zip(axes[0, 1:], models, strict=True):
        cells = pick(numbers, model=model)
        for look, windows, shift in zip(LOOKS, ("4,2,1", "6,4,2"), (-0.1, 0.1), strict=True):
            values = [_share(cells, column, f"W={windows}") for column in shown]
            heights = [number + shift for number in range(len(shown))]
            place.plot(heights, values, look.marker, color=look.color, label=look.label)
        level(place, 1.0)
        place.set_xticks(range(len(shown)), [column.title for column in shown], **_SLANTED)
        place.set_title(f"paper: {title(model)}", fontsize=8)
    axes[0, 1].set_ylabel("% of the full cache's score")
    legend_below(figure, first, 2)
    return figure


def _share(numbers: pd.DataFrame, column: Column, setting: str) -> float:
    """Printed score at a setting as a percentage of the full cache's."""
    cells = pick(numbers, benchmark=column.benchmark, metric=column.metric).set_index("setting")
    values = cells["value"]
    if setting not in values.index:
        return float("nan")
    return float(100 * values[setting] / values["compression=none"])


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Ours, then the paper's two models, one row a schedule."""
    import pandas as pd

    from figures import paper

    data, numbers = plotted(frame), paper.numbers("L-T9")
    rows = []
    for windows in dict.fromkeys(data["windows"]):
        row: dict[tuple[str, str], object] = {
            ("model", ""): here(frame),
            ("W", ""): windows or "full cache",
        }
        for column in COLUMNS:
            cells = pick(data, windows=windows, task=column.task)
            row[column.heading] = cell_of(cells) if len(cells) else MISSING
        rows.append(row)
    for (model, setting), cells in numbers.groupby(["model", "setting"], sort=False):
        windows = str(setting).removeprefix("W=")
        row = {
            ("model", ""): f"paper ({title(str(model))})",
            ("W", ""): "full cache" if "none" in windows else windows,
        }
        for column in COLUMNS:
            cell = pick(cells, benchmark=column.benchmark, metric=column.metric)["printed"]
            row[column.heading] = cell.iloc[0] if len(cell) else MISSING
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def judge_alike(frame: pd.DataFrame) -> Verdict:
    """Do both schedules score alike?"""
    schedules = [name for name in dict.fromkeys(frame["windows"]) if name]
    if len(schedules) < 2:
        return untestable("fewer than two window schedules were compared")
    one, other = (pick(frame, windows=name) for name in schedules[:2])
    return alike(other, one, f"W = {schedules[1]} against {schedules[0]}, all tasks")


def judge_preserved(frame: pd.DataFrame) -> Verdict:
    """Does the paper's schedule keep 98 % of the full cache's score?"""
    schedules = [name for name in dict.fromkeys(frame["windows"]) if name]
    if not schedules:
        return untestable("no window schedule was run")
    merged, whole = pick(frame, windows=schedules[0]), pick(frame, windows="")
    return keeps(merged, whole, PRESERVED, f"W = {schedules[0]}, share of the full cache's score")


SCHEDULES: Final = Artefact(
    id="L-T9",
    title="Window schedules on every benchmark",
    source="LightKV, Table 9",
    shows="LLaVA-1.5-13B and NeXT-13B with windows 4,2,1 and 6,4,2, eleven metrics.",
    study="window_schedules",
    planned=planned(256),
    seconds=10,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "The schedule of windows hardly matters.",
            "LightKV, Section 5 on Table 9",
            judge_alike,
            "difference between both schedules within 5 points over all tasks, interval included",
        ),
        Claim(
            "With W = 4,2,1 LightKV keeps 98 % of the full cache's score.",
            "LightKV, Table 9",
            judge_preserved,
            "share of the full cache's score over all tasks at least 0.98",
        ),
    ),
    caption="Left: our tasks, score with 95 % interval, dotted the full cache. Right: the paper's "
    "benchmarks as a share of the full cache's score.",
    explanation="On NeXT-13B the paper's own numbers lose a lot on GQA, ScienceQA and DocVQA, and "
    "its Avg (101.4 and 102.2) does not follow from them: 91.1 and 91.3 do.",
    alt="Dots of scores for two window schedules, ours and two models of the paper.",
    paper="L-T9",
)
