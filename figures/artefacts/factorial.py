"""X-8: which of LightKV's five choices and of TGV-KV's three parts carry the effect."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.asking.rows import VANILLA
from analysis.scoring.intervals import difference
from analysis.scoring.multiplicity import holm
from figures.artefacts.shared import legend_below, pick, planned, short
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, Look, canvas, nth
from figures.verdicts import Verdict, better, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.scoring.estimate import Estimate

TITLES: Final = {"lightkv": "LightKV", "tgvkv": "TGV-KV"}
WORDS: Final = {
    "lightkv": {
        "guidance": ("prompt attention weighs merges", "plain means (ToMe)"),
        "windows": ("4 x 4, 2 x 2, 1", "one window at each stage (ToMe)"),
        "hierarchy": ("three stages", "one early stage, as many token-layers"),
        "pairing": ("sets alternate by place", "by graph energy (PiToMe)"),
        "positions": ("positions stay", "renumbered after each stage"),
    },
    "tgvkv": {
        "tvb": ("budgets by text-vision attention", "uniform"),
        "twr": ("text-weighted ranking", "accumulated self-attention"),
        "tpr": ("text stays first", "text and vision by score"),
    },
}
"""What each part is, and what takes its place."""

WHOLE: Final = "all against none"
TOGETHER: Final = "all tasks"
CLAIMED: Final = ("guidance", "windows", "hierarchy")
"""Choices that LightKV's paper argues for; pairing and positions it only describes."""

LARGEST: Final = 5
"""Interactions of a method that are drawn."""


def sides(rows: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows in which an even number of the named parts is out of use, and the others.

    Their difference is a main effect of one name, an interaction of several.
    """
    out = sum((~rows[name].astype(bool)).astype(int) for name in names)
    even = np.asarray(out) % 2 == 0
    return rows[even], rows[~even]


def extremes(rows: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with every part in use, and with none."""
    used = rows[list(names)].astype(bool)
    return rows[used.all(axis=1)], rows[~used.any(axis=1)]


def contrasts(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """Name, order and both sides of everything that a factorial of these parts tells apart."""
    yield WHOLE, 0, extremes(rows, names)
    for order in range(1, len(names) + 1):
        for some in itertools.combinations(names, order):
            yield " × ".join(map(_shown, some)), order, sides(rows, some)


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Effects with intervals, per task and over all; of the latter p-values after Holm."""
    import pandas as pd

    parts = []
    for method, words in WORDS.items():
        rows = pick(frame, compared=method)
        for task in [*dict.fromkeys(rows["task"]), TOGETHER]:
            asked = rows if task == TOGETHER else pick(rows, task=task)
            lines = [
                {
                    "compared": method,
                    "effect": effect,
                    "order": order,
                    "task": task,
                    **_numbers(difference(*both)),
                }
                for effect, order, both in contrasts(asked, list(words))
            ]
            adjusted = holm([line["p"] for line in lines if line["order"]])
            parts.append(pd.DataFrame(lines).assign(p_holm=[np.nan, *adjusted]))
    return pd.concat(parts, ignore_index=True)


def _numbers(estimate: Estimate) -> dict[str, Any]:
    p = min(1.0, 2 * min(estimate.above(0.0), estimate.below(0.0)))
    low, high = estimate.bounds
    return {"n": estimate.n, "difference": estimate.value, "low": low, "high": high, "p": p}


def _shown(name: str) -> str:
    return name.upper() if name in WORDS["tgvkv"] else name


def drawn(data: pd.DataFrame) -> list[str]:
    """Effects of one method in the order of the figure: main ones, then the largest others."""
    over_all = pick(data, task=TOGETHER)
    main = over_all[over_all["order"] < 2]["effect"].tolist()
    others = over_all[over_all["order"] > 1].sort_values(
        "difference", key=abs, ascending=False, kind="stable"
    )
    return [*main, *others["effect"].head(LARGEST)]


def draw(frame: pd.DataFrame) -> Figure:
    """A panel per method: its effects, per task and over all."""
    data = plotted(frame)
    figure, axes = canvas(2, 1, height=2.5, height_ratios=(11, 8), sharex=True)
    for place, (method, title) in zip(axes[:, 0], TITLES.items(), strict=True):
        _panel(place, pick(data, compared=method))
        place.set_title(title)
    axes[-1, 0].set_xlabel("effect on the score, points")
    legend_below(figure, axes[0, 0], 4)
    return figure


def _panel(axes: Axes, data: pd.DataFrame) -> None:
    effects = drawn(data)
    tasks = list(dict.fromkeys(data["task"]))
    for number, task in enumerate(tasks):
        look = Look("", BLACK, "D") if task == TOGETHER else nth(number)
        shift = 0.22 * ((len(tasks) - 1) / 2 - number)
        cells = pick(data, task=task).set_index("effect").loc[effects]
        heights = np.arange(len(effects))[::-1] + shift
        axes.hlines(heights, 100 * cells["low"], 100 * cells["high"], color=look.color, lw=1)
        axes.plot(
            100 * cells["difference"],
            heights,
            look.marker,
            color=look.color,
            markersize=3.5,
            label=short(task),
        )
    axes.axvline(0, color=BLACK, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(effects)), effects[::-1])
    axes.grid(False, axis="y")


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every effect in points, per task and over all; what a part is and what replaces it."""
    import pandas as pd

    rows = []
    for (method, effect), cells in plotted(frame).groupby(["compared", "effect"], sort=False):
        words = WORDS[str(method)].get(str(effect).lower(), ("", ""))
        points = {f"{short(task)}, points": text for task, text in _points(cells)}
        over_all = pick(cells, task=TOGETHER).iloc[0]
        rows.append(
            {
                "method": TITLES[str(method)],
                "effect": effect,
                "in use": words[0],
                "instead": words[1],
                **points,
                "p after Holm": over_all["p_holm"],
            }
        )
    return pd.DataFrame(rows)


def _points(cells: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Of each task an effect with its interval."""
    for one in cells.to_dict("records"):
        value, low, high = (100 * one[name] for name in ("difference", "low", "high"))
        yield one["task"], f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


# ------------------------------------------------------------------ claims


def _adds(frame: pd.DataFrame, method: str, name: str) -> Verdict:
    """Whether a part's main effect is a gain."""
    used, unused = sides(pick(frame, compared=method), [name])
    text = f"{_shown(name)}, mean over all combinations of the others"
    return better(used, unused, text, whole=pick(frame, compared=VANILLA))


def _leads(frame: pd.DataFrame, method: str, name: str) -> Verdict:
    """Whether a part's main effect is larger than that of every other part.

    Where both parts are in use or both are not, their effects cancel; what is left are the rows
    with only the one against those with only the other.
    """
    rows = pick(frame, compared=method)
    if rows.empty:
        return _not_run(method)
    return all_of(
        better(
            rows[rows[name].astype(bool) & ~rows[other].astype(bool)],
            rows[~rows[name].astype(bool) & rows[other].astype(bool)],
            f"effect of {_shown(name)} minus that of {_shown(other)}",
            whole=pick(frame, compared=VANILLA),
        )
        for other in WORDS[method]
        if other != name
    )


def _all_add(frame: pd.DataFrame, method: str, names: Sequence[str]) -> Verdict:
    if pick(frame, compared=method).empty:
        return _not_run(method)
    return all_of(_adds(frame, method, name) for name in names)


def _not_run(method: str) -> Verdict:
    return untestable(f"no combination of {TITLES[method]}'s parts was run")


def judge_choices(frame: pd.DataFrame) -> Verdict:
    """Do guidance, windows and hierarchy each add to LightKV's score?"""
    return _all_add(frame, "lightkv", CLAIMED)


def judge_guidance(frame: pd.DataFrame) -> Verdict:
    """Is guidance's effect the largest of LightKV's choices?"""
    return _leads(frame, "lightkv", "guidance")


def judge_parts(frame: pd.DataFrame) -> Verdict:
    """Does each of TGV-KV's parts add to the score?"""
    return _all_add(frame, "tgvkv", tuple(WORDS["tgvkv"]))


def judge_ranking(frame: pd.DataFrame) -> Verdict:
    """Is TWR's effect the largest of TGV-KV's parts?"""
    return _leads(frame, "tgvkv", "twr")


_TASKS: Final = "over the tasks that tell the settings apart"

FACTORIAL: Final = Artefact(
    id="X-8",
    title="Which parts carry the effect",
    source="our own, across both papers",
    shows="Not in the papers: main effects and interactions of LightKV's five choices and of "
    "TGV-KV's three parts, from every combination.",
    study="all_combinations",
    planned=planned(256),
    seconds=70,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Guidance, windows and hierarchy each add to what LightKV keeps.",
            "LightKV, Section 3",
            judge_choices,
            f"main effect of each above 0, {_TASKS}",
        ),
        Claim(
            "Prompt guidance is what makes the difference to plain merging.",
            "LightKV, Section 3, on ToMe",
            judge_guidance,
            f"its main effect above that of each other choice, {_TASKS}",
        ),
        Claim(
            "Each of TGV-KV's three parts adds to what it keeps.",
            "TGV-KV, Table 5",
            judge_parts,
            f"main effect of each above 0, {_TASKS}",
        ),
        Claim(
            "TWR gives more than TVB and TPR.",
            "TGV-KV, Section 5 on Table 5",
            judge_ranking,
            f"its main effect above that of each other part, {_TASKS}",
        ),
    ),
    caption="Main effect of every part and the largest interactions with 95 % intervals, above "
    "LightKV at 55 %, below TGV-KV at 20 %. All settings answered the same questions.",
    explanation="A main effect is the score with a part minus that without it, averaged over all "
    "combinations of the others; an interaction of two is half of what the one's effect changes "
    "when the other is added. The first row of a panel is all parts against none. Every "
    "combination of a method holds the same share of the cache. LightKV's stages never halve twice "
    "in one place, so without hierarchy its one stage acts early. LightKV has no option for "
    "pairing: PiToMe's, in the same windows, takes its place. Intervals are of one effect each, "
    "and the interactions that are drawn were chosen for their size; p-values in the table are "
    "Holm's over all effects of the method.",
    alt="Effects with intervals of LightKV's choices above those of TGV-KV's parts, per task.",
)
