"""L-T6: FLOPs and memory of merge schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.shared import pick, printed, records
from figures.compound import all_of, worst_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, BLUE, RED, canvas
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOLERANCE: Final = 0.05
"""Relative error within which a printed number counts as reproduced."""

METRICS: Final = {"flops": ("flops", "TFLOPs"), "kv": ("kv_cache_memory", "KV GiB")}


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Computed and printed numbers with their relative error, one row a number."""
    import pandas as pd

    from figures import paper

    numbers = paper.numbers("L-T6")
    rows = []
    for schedule in records(frame):
        for column, (metric, unit) in METRICS.items():
            wanted = _printed_setting(schedule)
            value = printed(numbers, model=schedule["model"], metric=metric, setting=wanted)
            rows.append(
                {
                    "model": schedule["model"],
                    "title": schedule["title"],
                    "layers": schedule["layers"],
                    "windows": schedule["windows"],
                    "metric": unit,
                    "computed": float(schedule[column]),
                    "printed": value,
                    "error": float(schedule[column]) / value - 1,
                }
            )
    return pd.DataFrame(rows)


def _printed_setting(row: dict[str, Any]) -> str:
    """How Table 6 writes a schedule; its third row's Λ is unreadable and taken as 15,23,31."""
    layers, windows = str(row["layers"]), str(row["windows"])
    if not layers:
        return "compression=none"
    if (layers, windows) == ("15,23,31", "6,4,2"):
        layers = "?"
    return f"Lambda={layers};W={windows}"


def _label(row: dict[str, Any]) -> str:
    schedule = f"Λ {row['layers']}, W {row['windows']}" if row["layers"] else "vanilla"
    return f"{row['title']}\n{schedule}"


def draw(frame: pd.DataFrame) -> Figure:
    """Computed against printed, one line a schedule."""
    data = plotted(frame)
    figure, axes = canvas(1, 2, height=4.4, sharey=True)
    for place, (metric, cells) in zip(axes[0], data.groupby("metric", sort=False), strict=True):
        lines = records(cells)
        heights = list(range(len(lines)))[::-1]
        place.hlines(heights, cells["printed"], cells["computed"], color="#999999", linewidth=1)
        place.scatter(cells["printed"], heights, color=BLACK, marker="D", s=26, label="printed")
        place.scatter(cells["computed"], heights, color=BLUE, marker="o", s=26, label="computed")
        for height, row in zip(heights, lines, strict=True):
            color = RED if abs(row["error"]) > TOLERANCE else BLACK
            right = max(row["printed"], row["computed"])
            place.annotate(
                f"{100 * row['error']:+.1f} %",
                (right, height),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                size=8,
                color=color,
            )
        place.set_yticks(heights, [_label(row) for row in lines])
        place.set_xlim(0, 1.25 * cells[["printed", "computed"]].max().max())
        place.set_xlabel(metric)
        place.set_title("KV cache" if metric == "KV GiB" else "Computation of a request")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Computed beside printed, with the relative error."""
    import pandas as pd

    rows = []
    for (title, layers, windows), cells in plotted(frame).groupby(
        ["title", "layers", "windows"], sort=False
    ):
        row: dict[tuple[str, str], object] = {
            ("model", ""): title,
            ("Λ", ""): layers or "none",
            ("W", ""): windows or "none",
        }
        for one in records(cells):
            row["here (computed)", one["metric"]] = one["computed"]
            row["paper (Table 6)", one["metric"]] = one["printed"]
            row["relative error, %", one["metric"]] = f"{100 * one['error']:+.1f}"
        rows.append(row)
    order = sorted(rows[0], key=lambda name: _COLUMN_ORDER.index(name[0]))
    return pd.DataFrame(rows)[order].set_axis(pd.MultiIndex.from_tuples(order), axis=1)


_COLUMN_ORDER: Final = (
    "model",
    "Λ",
    "W",
    "here (computed)",
    "paper (Table 6)",
    "relative error, %",
)


def judge_reproduced(frame: pd.DataFrame) -> Verdict:
    """Is every printed number within the tolerance of the computed one?"""
    data = plotted(frame).dropna(subset=["error"])
    verdicts = []
    for metric, cells in data.groupby("metric", sort=False):
        worst = float(cells["error"].abs().max())
        verdicts.append(verdict(worst <= TOLERANCE, f"{metric}: largest error {100 * worst:.1f} %"))
    return all_of(verdicts)


def judge_later_costs_more(frame: pd.DataFrame) -> Verdict:
    """Does moving the stages deeper cost more FLOPs and memory?"""
    return worst_of(
        verdict(
            late[column] > early[column],
            f"{model}, W {windows}, {unit}: {late[column]:.3g} against {early[column]:.3g}",
        )
        for model, windows, early, late in _pairs(frame)
        for column, (_, unit) in METRICS.items()
    )


def judge_windows_save(frame: pd.DataFrame) -> Verdict:
    """Do larger early windows (6,4,2 against 4,2,1) save FLOPs and memory?"""
    verdicts = []
    for (model, layers), pair in pick(frame, windows=["4,2,1", "6,4,2"]).groupby(
        ["model", "layers"], sort=False
    ):
        rows = pair.set_index("windows")
        if set(rows.index) != {"4,2,1", "6,4,2"}:
            continue
        for column, (_, unit) in METRICS.items():
            more, fewer = float(rows[column]["6,4,2"]), float(rows[column]["4,2,1"])
            text = f"{model}, Λ {layers}, {unit}: {more:.4g} with 6,4,2, {fewer:.4g} with 4,2,1"
            verdicts.append(verdict(more < fewer, text))
    return worst_of(verdicts)


def _pairs(
    frame: pd.DataFrame,
) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """The early and the late schedule of each model and W."""
    pairs = []
    for (model, windows), schedules in frame[frame["layers"] != ""].groupby(
        ["model", "windows"], sort=False
    ):
        rows = {row["layers"]: row for row in records(schedules)}
        if {"15,23,31", "17,24,31"} <= set(rows):
            pairs.append((str(model), str(windows), rows["15,23,31"], rows["17,24,31"]))
    return pairs


SCHEDULES: Final = Artefact(
    id="L-T6",
    title="FLOPs and KV memory of merge schedules",
    source="LightKV, Table 6",
    shows="Computation and KV memory of the 13B models for merge layers Λ and windows W.",
    study="schedule_cost",
    seconds=2,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "The printed FLOPs and memory follow from the models' dimensions and the schedules.",
            "LightKV, Table 6",
            judge_reproduced,
            "every printed number within 5 % of the computed one",
        ),
        Claim(
            "Merging later costs more computation and memory.",
            "LightKV, Table 6",
            judge_later_costs_more,
            "Λ 17,24,31 above Λ 15,23,31 at equal W, on both models",
        ),
        Claim(
            "More windows in the early stages raise efficiency.",
            "LightKV, Section 5 on Table 6",
            judge_windows_save,
            "W 6,4,2 below W 4,2,1 at equal Λ, FLOPs and memory, on both models",
        ),
    ),
    caption="Computed from the models' dimensions (circles) against the paper's print (diamonds); "
    "the relative error is beside each, in another colour beyond 5 %.",
    explanation="Nothing is run: matrix products are counted for 48 prompt and 100 generated "
    "tokens, 2 FLOPs a multiply-accumulate, 2 bytes a cached number. The vanilla rows agree to the "
    "printed digit. The paper does not say how it counts a merging stage, so LightKV's rows differ "
    "by a few per cent. Its third row prints Λ 13,23,31, but its numbers are those of 15,23,31.",
    alt="Dot plot of computed and printed FLOPs and KV memory for vanilla and four schedules on "
    "two models; the dots nearly coincide.",
    paper="L-T6",
)
