"""L-T9: what the schedule of windows does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analysis.scoring.leads import lead
from figures.artefacts.columns import Column
from figures.artefacts.evictor_tables import held
from figures.artefacts.layout import Layout
from figures.artefacts.methods import VANILLA
from figures.artefacts.prefill_tables import COCO, GQA, MME, NOCAPS, POPE, SCIENCE, SEED, VIZWIZ
from figures.artefacts.published import DOCVQA
from figures.artefacts.score_tables import HERE, table, title
from figures.artefacts.shared import legend_below, level, pick, planned, points
from figures.contract import Artefact, Claim
from figures.style import BLUE, ORANGE, Look, canvas
from figures.verdicts import Verdict, equivalent, keeps, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYOUT: Final = Layout(
    "L-T9",
    (
        *(COCO, Column("docvqa", "score", "DocVQA", "embedded/read", DOCVQA), GQA, *MME, NOCAPS),
        *(*POPE, SCIENCE, SEED, VIZWIZ),
    ),
    "windows",
    lambda windows: f"W = {windows}",
    read=lambda setting: setting.removeprefix("W="),
)
LOOKS: Final = (Look("W = 4,2,1", BLUE, "s"), Look("W = 6,4,2", ORANGE, "D"))
DRAWN: Final = tuple(column for column in LAYOUT.columns if not column.points)
PRESERVED: Final = 0.98
_SLANTED: Final[dict[str, Any]] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}


def draw(frame: pd.DataFrame) -> Figure:
    """Scores by task for both schedules, ours and the paper's; points are in the table only."""
    numbers = LAYOUT.numbers()
    models = list(dict.fromkeys(numbers["model"]))
    figure, axes = canvas(1, 1 + len(models), height=3.0)
    _ours(axes[0, 0], frame)
    for place, model in zip(axes[0, 1:], models, strict=True):
        cells = pick(numbers, model=model)
        for look, windows, shift in zip(LOOKS, ("4,2,1", "6,4,2"), (-0.1, 0.1), strict=True):
            values = [_share(cells, column, f"W={windows}") for column in DRAWN]
            heights = [number + shift for number in range(len(DRAWN))]
            place.plot(heights, values, look.marker, color=look.color, label=look.label)
        level(place, 1.0)
        place.set_xticks(range(len(DRAWN)), [column.title for column in DRAWN], **_SLANTED)
        place.set_title(f"paper: {title(model)}", fontsize=8)
    axes[0, 1].set_ylabel("% of the full cache's score")
    legend_below(figure, axes[0, 0], 2)
    return figure


def _ours(axes: Axes, frame: pd.DataFrame) -> None:
    """Our scores by task, or score of a benchmark, with the full cache's as dotted lines."""
    import pandas as pd

    shown = LAYOUT.asked(frame).shares(LAYOUT.plotted(frame))
    names, rows = [name for name, _ in shown], pd.concat([cells for _, cells in shown])
    for place, (look, windows) in enumerate(zip(LOOKS, _schedules(frame), strict=False)):
        x = [number + 0.2 * place - 0.1 for number in range(len(names))]
        points(axes, x, pick(rows, windows=windows), look, label=f"W = {windows}", joined=False)
    for number, full in enumerate(pick(rows, compared=VANILLA)["score"]):
        axes.plot([number - 0.35, number + 0.35], [100 * full] * 2, "k:", lw=1.2)
    axes.set_xticks(range(len(names)), names, **_SLANTED)
    axes.set_ylabel("score, %")
    axes.set_title(HERE)


def _schedules(frame: pd.DataFrame) -> list[str]:
    return [windows for windows in dict.fromkeys(frame["windows"]) if windows]


def _share(numbers: pd.DataFrame, column: Column, setting: str) -> float:
    """Printed score at a setting as a percentage of the full cache's."""
    cells = pick(numbers, benchmark=column.benchmark, metric=column.metric).set_index("setting")
    values = cells["value"]
    if setting not in values.index:
        return float("nan")
    return float(100 * values[setting] / values["compression=none"])


def judge_alike(frame: pd.DataFrame) -> Verdict:
    """Do both schedules score alike?"""
    schedules = _schedules(frame)
    if len(schedules) < 2:
        return untestable("fewer than two window schedules were compared")
    one, other = (pick(frame, windows=windows) for windows in schedules[:2])
    text = f"W = {schedules[1]} against {schedules[0]}, all tasks, difference of scores"
    return equivalent(lead(other, one, pick(frame, compared=VANILLA)), text)


def judge_preserved(frame: pd.DataFrame) -> Verdict:
    """Does the paper's schedule keep 98 % of the full cache's score?"""
    schedules = _schedules(frame)
    if not schedules:
        return untestable("no window schedule was run")
    merged, whole = pick(frame, windows=schedules[0]), pick(frame, compared=VANILLA)
    return keeps(merged, whole, PRESERVED, f"W = {schedules[0]}, share of the full cache's score")


SCHEDULES: Final = Artefact(
    id="L-T9",
    title="Window schedules on every benchmark",
    source="LightKV, Table 9",
    shows="LLaVA-1.5-13B and NeXT-13B with windows 4,2,1 and 6,4,2, eleven metrics.",
    study="window_schedules",
    planned=planned(256),
    seconds=10,
    plotted=LAYOUT.plotted,
    draw=draw,
    table=lambda frame: table(frame, LAYOUT, held),
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
    "benchmarks as a share of the full cache's score. MME is in the table only.",
    explanation="With --benchmarks they are on the left as well. On NeXT-13B the paper's own "
    "numbers lose a lot on GQA, ScienceQA and DocVQA, and "
    "its Avg (101.4 and 102.2) does not follow from them: 91.1 and 91.3 do.",
    alt="Dots of scores for two window schedules, ours and two models of the paper.",
    paper="L-T9",
    benchmarks=LAYOUT.benchmarks,
)
