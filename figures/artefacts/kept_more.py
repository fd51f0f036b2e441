"""T-F8: which patches each layer keeps, on more questions of several kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import QUESTION
from figures.artefacts.kept import counts, judge_shallow_larger, judge_text_first, layers_shown
from figures.artefacts.pictures import faded, pixels, show
from figures.artefacts.shared import pick, short
from figures.contract import Artefact, Claim
from figures.style import sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_ROWS: Final = 6


def shown(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The first question of each task, then the second ones, as far as there is room."""
    questions = frame[[*QUESTION]].drop_duplicates()
    turn = questions.groupby("task", sort=False).cumcount()
    first = questions.assign(turn=turn).sort_values("turn", kind="stable").head(MOST_ROWS)
    ordered = first[[*QUESTION]].to_dict("records")
    return [pick(frame, **{str(name): value for name, value in one.items()}) for one in ordered]


def question_of(entries: pd.DataFrame) -> str:
    """The text after the picture, as the model reads it."""
    text = pick(entries, kind="text").drop_duplicates("position").sort_values("position")
    return " ".join(text["token"].str.strip("Ġ▁ ")).strip()


def draw(frame: pd.DataFrame) -> Figure:
    """A row per question: the picture, then layer by layer the patches that stay."""
    questions, layers = shown(frame), layers_shown(frame)
    figure = sheet(1.15 * len(questions))
    parts: Any = figure.subfigures(len(questions), 1, squeeze=False)
    for part, entries in zip(parts[:, 0], questions, strict=True):
        places = part.subplots(1, 1 + len(layers), squeeze=False)[0]
        vision = pick(entries, kind="vision")
        rows, cols = int(vision["row"].max()) + 1, int(vision["col"].max()) + 1
        picture = pixels(entries, rows, cols)
        show(places[0], picture, "picture")
        for place, layer in zip(places[1:], layers, strict=True):
            held = vision[vision["kept"] & (vision["layer"] == layer)]
            mask = np.zeros((rows, cols))
            mask[held["row"].to_numpy(int), held["col"].to_numpy(int)] = 1
            show(place, faded(picture, mask), f"{layer}: {len(held)}")
        task = short(str(entries["task"].iloc[0]))
        part.suptitle(f"{task}: {question_of(entries)}", size=9, x=0.01, ha="left")
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Patches that a layer keeps, mean over the questions of a task."""
    import pandas as pd

    counted = pick(counts(frame), kind="vision")
    means = counted.groupby(["task", "layer"], sort=False)["kept"].mean().unstack("task")
    rows = [
        {"layer": f"{layer}", **{short(str(task)): f"{n:.1f}" for task, n in row.items()}}
        for layer, row in means.sort_index().iterrows()
    ]
    return pd.DataFrame(rows)


MORE_KEPT: Final = Artefact(
    id="T-F8",
    title="Which patches stay, on more questions",
    source="TGV-KV, Figure 8",
    shows="Text and image entries kept in each layer of LLaVA, for more pictures and questions.",
    study="kept_maps",
    options={
        "tasks": ("embedded/read", "embedded/where", "embedded/count", "embedded/list"),
        "retentions": (0.1,),
        "samples": 6,
    },
    seconds=10,
    plotted=counts,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Whatever is asked, shallow layers get the larger budgets.",
            "TGV-KV, Section 5 on Figures 5 and 8",
            judge_shallow_larger,
            "share of entries kept in the shallow half of the layers above that in the deep half, "
            "paired by question, over all kinds of questions",
        ),
        Claim(
            "Whatever is asked, text stays before any vision entry does.",
            "TGV-KV, Equation 10",
            judge_text_first,
            "no layer holds a vision entry while a word of the question is missing",
        ),
    ),
    caption="One question a row, at 10 %: the picture, then layer by layer the patches whose "
    "entries stay, in colour. Above each picture the layer and how many stay.",
    explanation="As in T-F5, on questions of several kinds. At the paper's 3 % the embedded "
    "model's short prompts leave hardly a patch, so 10 % is shown.",
    alt="Rows of small pictures, one row a question and one picture a layer, in which only the "
    "kept patches have colour.",
)
