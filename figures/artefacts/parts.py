"""T-F3: TGV-KV's budgets, ranking and retention, drawn from what one run read and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from figures.artefacts.pictures import faded, pixels, show
from figures.artefacts.shared import pick
from figures.contract import Artefact, Claim
from figures.style import BLACK, BLUE, GREY, RED, SKY, sheet
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROPORTIONAL: Final = 0.05
"""Relative deviation within which budgets follow the attention that they are made of."""

MOST_WORDS: Final = 14
DARKEST: Final = 1e-3
"""Share of the best patch's score that is drawn as nothing."""


def budgets(frame: pd.DataFrame) -> pd.DataFrame:
    """Per layer: share of the text-to-vision attention, budget, and entries kept by kind."""
    requested = frame.groupby("layer")[["text_vision", "requested"]].first()
    kept = frame[frame["kept"]].groupby(["layer", "kind"]).size().unstack(fill_value=0)
    kinds = [kind for kind in ("system", "text", "vision") if kind in set(frame["kind"])]
    return requested.join(kept.reindex(columns=kinds, fill_value=0)).fillna(0).reset_index()


def draw_parts(frame: pd.DataFrame) -> Figure:
    """TVB: budgets; TWR: words and patches of one layer; TPR: what stays."""
    data = budgets(frame)
    layer = int(data.sort_values("requested")["layer"].iloc[-1])
    entries = pick(frame, layer=layer)
    figure = sheet(5.4)
    parts: Any = figure.subfigures(2, 1)
    above, below = parts
    _budgets(above.subplots(1, 2), data)
    places = below.subplots(1, 4, width_ratios=(1.1, 1, 1, 1.2))
    _words(places[0], entries)
    vision = pick(entries, kind="vision")
    rows, cols = int(vision["row"].max()) + 1, int(vision["col"].max()) + 1
    picture = pixels(entries, rows, cols)
    score, mask = np.zeros((rows, cols)), np.zeros((rows, cols))
    at = vision["row"].to_numpy(int), vision["col"].to_numpy(int)
    score[at], mask[at] = vision["score"], vision["kept"]
    best = max(float(score.max()), 1e-12)
    shade = np.log10((score / best).clip(DARKEST))
    places[1].imshow(shade, cmap="cividis", extent=(0, cols, rows, 0), interpolation="nearest")
    places[1].set_title("TWR  …rank the\npatches (log)")
    places[1].set_xticks([])
    places[1].set_yticks([])
    places[1].grid(False)
    show(places[2], faded(picture, mask), f"TPR  {int(mask.sum())} patches\nstay in layer {layer}")
    _ranked(places[3], vision)
    return figure


def _budgets(axes: Any, data: pd.DataFrame) -> None:
    shares, stacked = axes
    shares.bar(data["layer"], 100 * data["text_vision"], color=SKY)
    shares.set_title("TVB  attention from text to image,\nshare of each layer")
    shares.set_ylabel("%")
    bottom = np.zeros(len(data))
    for kind, color in (("system", GREY), ("text", RED), ("vision", BLUE)):
        if kind in data:
            stacked.bar(data["layer"], data[kind], bottom=bottom, color=color, label=kind)
            bottom = bottom + data[kind].to_numpy()
    stacked.plot(data["layer"], data["requested"], "_", ms=16, color=BLACK, label="budget")
    stacked.set_title("…sets the budgets; TPR fills them\nwith text first")
    stacked.set_ylabel("entries")
    stacked.set_ylim(0, 1.4 * max(bottom.max(), data["requested"].max()))
    stacked.legend(loc="upper center", ncols=2)
    for place in axes:
        place.set_xlabel("layer")
        place.set_xticks(data["layer"])
        place.grid(False, axis="x")


def _words(axes: Axes, entries: pd.DataFrame) -> None:
    words = pick(entries, kind="text").sort_values("position").head(MOST_WORDS)
    places = range(len(words))
    axes.barh(places, words["weight"], color=RED)
    axes.set_yticks(places, words["token"])
    axes.invert_yaxis()
    axes.set_title("TWR  words' weights…")
    axes.grid(False)


def _ranked(axes: Axes, vision: pd.DataFrame) -> None:
    """Vision scores from best to worst; those that stay in colour."""
    ranked = vision.sort_values("score", ascending=False).reset_index(drop=True)
    for kept, color in ((True, BLUE), (False, "#CCCCCC")):
        part = ranked[ranked["kept"] == kept]
        axes.bar(part.index, part["score"], 1.0, color=color, label="kept" if kept else "evicted")
    axes.set_title("the best of\nthem stay")
    axes.set_xlabel("patches by score")
    axes.set_yscale("log")
    axes.legend()


def table_parts(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of attention, budget and kept entries of every layer."""
    import pandas as pd

    rows = []
    for row in budgets(frame).to_dict("records"):
        kept = {
            f"{kind} kept": f"{row[kind]:g}" for kind in ("system", "text", "vision") if kind in row
        }
        rows.append(
            {
                "layer": f"{row['layer']:g}",
                "text-to-vision attention, %": f"{100 * row['text_vision']:.1f}",
                "budget (TVB), entries": f"{row['requested']:.1f}",
                **kept,
            }
        )
    return pd.DataFrame(rows)


def judge_budgets(frame: pd.DataFrame) -> Verdict:
    """Are budgets proportional to the attention from text to vision?"""
    data = budgets(frame)
    share = data["requested"] / data["requested"].sum()
    apart = float((share / data["text_vision"] - 1).abs().max())
    return verdict(
        apart < PROPORTIONAL, f"shares of the budget differ by {100 * apart:.1f} % at most"
    )


def judge_best_stay(frame: pd.DataFrame) -> Verdict:
    """In every layer, has no evicted patch a higher score than a kept one?"""
    broken = []
    for layer, patches in pick(frame, kind="vision").groupby("layer"):
        kept, gone = patches[patches["kept"]]["score"], patches[~patches["kept"]]["score"]
        if len(kept) and len(gone) and kept.min() < gone.max():
            broken.append(f"{layer}")
    count = frame["layer"].nunique()
    return verdict(not broken, f"{len(broken)} of {count} layers keep a patch below an evicted one")


def judge_text_first(frame: pd.DataFrame) -> Verdict:
    """Does no layer hold a patch while a word of the question is missing?"""
    broken = 0
    for _, entries in frame.groupby("layer"):
        words, patches = pick(entries, kind="text"), pick(entries, kind="vision")
        broken += bool(patches["kept"].any() and not words["kept"].all())
    count = frame["layer"].nunique()
    return verdict(broken == 0, f"{broken} of {count} layers hold patches with words missing")


THREE_PARTS: Final = Artefact(
    id="T-F3",
    title="Budgets, ranking and retention in one run",
    source="TGV-KV, Figure 3",
    shows="TGV-KV's three parts: budgets from text-to-vision attention, ranking with text weights, "
    "retention that puts text first.",
    study="ranked_entries",
    seconds=4,
    plotted=budgets,
    draw=draw_parts,
    table=table_parts,
    claims=(
        Claim(
            "A layer's budget is its share of the attention from text to vision.",
            "TGV-KV, Equation 5",
            judge_budgets,
            "in the run that is drawn: shares of the budget and of the attention within 5 %",
        ),
        Claim(
            "The patches with the highest text-weighted score stay.",
            "TGV-KV, Equation 8",
            judge_best_stay,
            "in the run that is drawn: in no layer an evicted patch scores above a kept one",
        ),
        Claim(
            "Text stays before any patch does.",
            "TGV-KV, Equation 10",
            judge_text_first,
            "in the run that is drawn: no layer holds a patch while a word is missing",
        ),
    ),
    caption="One run at 10 %. Above: attention from text to the image per layer, and the entries "
    "that each layer keeps of its budget. Below, in the layer with the largest budget: weights of "
    "the words, the patches' scores, and what stays.",
    explanation="The diagram is made from what a run read and kept. A budget that is larger than "
    "what a layer holds is given to the others, so the largest may lie below its share.",
    alt="Bars of attention and budgets per layer, bars of word weights, a map of scores and the "
    "picture with the kept patches.",
)
