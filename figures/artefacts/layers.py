"""L-F6: accuracy against the one layer after which tokens are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.asking.rows import VANILLA
from analysis.scoring.intervals import difference
from figures.artefacts.shared import (
    cell_of,
    here,
    legend_below,
    pick,
    planned,
    points,
    short,
    summary,
)
from figures.contract import Artefact, Claim
from figures.style import canvas, nth
from figures.verdicts import Verdict, better, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SINGLED_OUT: Final = "vizwiz"
"""The benchmark that the paper's text says suffers most."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval per task and layer; the full cache has no layer."""
    return summary(frame, ("task", "layer"))


def draw(frame: pd.DataFrame) -> Figure:
    """One line per task; the full cache stands at the right as an open marker."""
    data = plotted(frame)
    figure, axes = canvas(1, 1, height=3.4)
    place = axes[0, 0]
    last = int(data["layer"].max())
    for index, task in enumerate(dict.fromkeys(data["task"])):
        cells, look = pick(data, task=task), nth(index)
        merged = cells.dropna(subset=["layer"]).sort_values("layer")
        points(place, merged["layer"].tolist(), merged, look, label=short(task))
        full = cells[cells["layer"].isna()]
        if len(full):
            place.plot(
                last + 1, 100 * full["score"].iloc[0], look.marker, mfc="white", mec=look.color
            )
    layers = sorted(int(layer) for layer in data["layer"].dropna().unique())
    place.set_xticks([*layers, last + 1], [*map(str, layers), "full\ncache"])
    place.set_xlabel("layer λ after which half of the vision tokens is merged away")
    place.set_ylabel("score, %")
    legend_below(figure, place, 8)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores, one row a layer, one column a task. The paper prints no numbers."""
    import pandas as pd

    data = plotted(frame)
    rows = []
    for layer in [*sorted(data["layer"].dropna().unique()), None]:
        row: dict[tuple[str, str], object] = {
            ("merged after layer", ""): "full cache" if layer is None else f"{layer:g}"
        }
        cells = data[data["layer"].isna() if layer is None else data["layer"] == layer]
        for task in dict.fromkeys(data["task"]):
            row[here(frame), f"{short(task)}, %"] = cell_of(pick(cells, task=task))
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def judge_shallow_hurts(frame: pd.DataFrame) -> Verdict:
    """Does merging after the deepest layer score above merging after the shallowest?"""
    layers = sorted(frame["layer"].dropna().unique())
    if len(layers) < 2:
        return untestable("fewer than two layers were compared")
    deep, shallow = layers[-1], layers[0]
    text = f"layer {deep:g} over layer {shallow:g}, all tasks"
    whole = pick(frame, method=VANILLA)
    return better(pick(frame, layer=deep), pick(frame, layer=shallow), text, whole=whole)


def judge_singled_out(frame: pd.DataFrame) -> Verdict:
    """Does VizWiz lose most at the shallowest layer?"""
    tasks = list(dict.fromkeys(frame["task"]))
    named = [task for task in tasks if SINGLED_OUT in task.lower()]
    if not named or len(tasks) < 2:
        return untestable(f"VizWiz is not among the tasks asked ({', '.join(map(short, tasks))})")
    layer = frame["layer"].min()
    losses = {
        task: difference(
            pick(frame, task=task, method=VANILLA), pick(frame, task=task, layer=layer)
        ).value
        for task in tasks
    }
    worst = max(losses, key=lambda task: losses[task])
    text = ", ".join(f"{short(task)} {100 * loss:.1f}" for task, loss in losses.items())
    return verdict(worst in named, f"points lost at layer {layer:g}: {text}")


SINGLE_LAYER: Final = Artefact(
    id="L-F6",
    title="Accuracy against the merge layer",
    source="LightKV, Figure 6",
    shows="LLaVA-NeXT-13B with one merging stage after layer λ: each benchmark's score against λ.",
    study="single_layer_sweep",
    planned=planned(48),
    seconds=60,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Merging after a shallow layer hurts more than after a deep one.",
            "LightKV, Section 5 on Figure 6",
            judge_shallow_hurts,
            "paired difference of scores, deepest minus shallowest layer, above 0 over all tasks",
            main=True,
        ),
        Claim(
            "VizWiz suffers most.",
            "LightKV, Section 5 on Figure 6",
            judge_singled_out,
            "the largest loss at the shallowest layer is VizWiz's",
        ),
    ),
    caption="Score with 95 % interval when half of the vision tokens is merged away once, after "
    "layer λ. Open markers: full cache.",
    explanation="The paper prints this figure without numbers. A deep stage leaves most layers "
    "untouched, so it saves little: the curve shows the price of saving early. The layer itself "
    "still sees every token; the merge takes effect from the next one on.",
    alt="Lines of score against merge layer, one per task, with the full cache at the right.",
)
