"""X-9: X-1 of both embedded models, and where they agree about the methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from figures.artefacts import retention
from figures.artefacts.agreement import ranks_agree, say_alike
from figures.artefacts.retention import COMPRESSED
from figures.artefacts.shared import (
    evictable,
    here,
    legend_below,
    pick,
    planned,
    points,
    summary,
)
from figures.contract import Artefact, Claim
from figures.models import EMBEDDED, NATIVE
from figures.style import BLACK, GREY, Look, look
from figures.verdicts import Verdict, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES: Final = ("-", "--")
"""Of the first and of the second model."""

OF_BOTH: Final = {
    "LightKV at 55 % keeps 98 % of the full cache's score": retention.judge_preserved,
    "TGV-KV keeps nearly all of it at 5 %": retention.judge_tight,
    "TGV-KV beats random eviction": retention.judge_beats_random,
    "random eviction collapses on captions": retention.judge_random_collapses,
}
"""X-1's claims in short, with what judges them of one model."""


def models(frame: pd.DataFrame) -> list[str]:
    """Models that were asked, in their order."""
    return list(dict.fromkeys(frame["model"]))


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """What X-1 shows, of each model."""
    return summary(frame, ("model", "task", "family", "setting"))


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per task: score against the share held, a line a method and model."""
    data = plotted(frame)
    tasks = list(dict.fromkeys(data["task"]))
    figure, axes = retention.task_panels(tasks)
    for place, task in zip(axes.flat, tasks, strict=False):
        for name, dash in zip(models(frame), LINES, strict=False):
            # Of a folder or a hub id the last part.
            _lines(place, pick(data, task=task, model=name), name.rpartition("/")[2], dash)
        retention.share_axis(place)
    legend_below(figure, axes[0, 0], 3)
    return figure


def _lines(axes: Axes, data: pd.DataFrame, model: str, dash: str) -> None:
    """One model's methods and its full cache."""
    for method in COMPRESSED:
        cells = pick(data, family=method).sort_values("kv_share")
        if len(cells):
            known = look(method)
            named = Look(f"{known.label}, {model}", known.color, known.marker, dash)
            points(axes, (100 * cells["kv_share"]).tolist(), cells, named)
    full = pick(data, family="vanilla")
    if len(full):
        color = BLACK if dash == LINES[0] else GREY
        label = f"full cache, {model}"
        axes.axhline(100 * full.iloc[0]["score"], color=color, linestyle=":", label=label)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """X-1's rows of each model."""
    import pandas as pd

    parts = []
    for name in models(frame):
        part = retention.table(pick(frame, model=name))
        # Whose they are stands in a column of its own, so that both have the same headings.
        part = part.rename(columns={here(pick(frame, model=name)): "here"}, level=0)
        part.insert(0, ("model", ""), name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def alike(judge: Callable[[pd.DataFrame], Verdict]) -> Callable[[pd.DataFrame], Verdict]:
    """Whether a claim gets the same word of both models."""

    def both(frame: pd.DataFrame) -> Verdict:
        names = models(frame)
        if len(names) != 2:
            return untestable(f"{len(names)} model was asked, and two are compared")
        return say_alike({name: judge(pick(frame, model=name)) for name in names})

    return both


def judge_order(frame: pd.DataFrame) -> Verdict:
    """Do the two models rank methods and budgets alike?"""
    names = models(frame)
    if len(names) != 2:
        return untestable(f"{len(names)} model was asked, and two are compared")
    rows = evictable(frame[frame["family"] != "vanilla"])
    one, other = (_places(pick(rows, model=name)) for name in names)
    return ranks_agree(one, other, "methods at their budgets, tasks of several words")


def _places(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose ``method`` is the method and the place of its setting, from the mildest on.

    Merging layers have other numbers in a model of another depth.
    """
    order = rows.drop_duplicates(["family", "setting"]).groupby("family").cumcount() + 1
    first = rows.loc[order.index]
    places = {
        (family, setting): f"{family} {place}"
        for family, setting, place in zip(first["family"], first["setting"], order, strict=True)
    }
    pairs = zip(rows["family"], rows["setting"], strict=True)
    return rows.assign(method=[places[pair] for pair in pairs])


TWO_MODELS: Final = Artefact(
    id="X-9",
    title="Two models side by side",
    source="our own, across both papers",
    shows="X-1 of a square LLaVA of 8 layers and of a Qwen3-VL of 16 layers with grouped key heads "
    "and positions on three axes, on the same questions.",
    study="retention_sweep",
    options={"samples": 8},
    planned=planned(128),
    models=(EMBEDDED, NATIVE),
    seconds=120,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        *(
            Claim(
                f"The models agree whether {what}.",
                "our own, on X-1",
                alike(judge),
                "both hold or both do not, each at its level by Holm over the two ways to agree",
            )
            for what, judge in OF_BOTH.items()
        ),
        Claim(
            "The models rank methods and budgets alike.",
            "our own",
            judge_order,
            "Spearman's rank correlation of mean scores at least 0.8; does not hold below 0; tasks "
            "with answers of several words",
        ),
    ),
    caption="Score with 95 % interval against the share of the full cache's bytes held after "
    "prefill. Solid: the LLaVA; dashed: the Qwen3-VL. Dotted: full cache, black and grey.",
    explanation="Both models are asked the same held-out questions, of square pictures. Merging "
    "layers are the same shares of each model's depth. Where lines of one colour fall together the "
    "models agree about a method; compare their distance from the dotted line of their own model.",
    alt="One panel per task: score against the share of the cache held, three methods on each of "
    "two models.",
)
