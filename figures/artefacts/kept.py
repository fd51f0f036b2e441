"""T-F5: which patches and which words each layer keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import QUESTION
from figures.artefacts.pictures import faded, pixels, show
from figures.artefacts.shared import pick
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, RED, sheet
from figures.verdicts import Verdict, better, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: Final = 8
KINDS: Final = {"vision": "patches", "text": "question", "system": "text before it"}
PALE: Final = "#E4E4E4"


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    named = frame.iloc[0]
    return pick(frame, **{name: named[name] for name in QUESTION})


def _retentions(frame: pd.DataFrame) -> list[float]:
    return sorted(float(retention) for retention in frame["retention"].unique())


def layers_shown(frame: pd.DataFrame) -> list[int]:
    """All layers, or eight of them evenly from first to last."""
    layers = sorted(int(layer) for layer in frame["layer"].unique())
    if len(layers) <= PANELS:
        return layers
    return [layers[int(place)] for place in np.linspace(0, len(layers) - 1, PANELS).round()]


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Entries kept and present per retention, question, layer and kind."""
    by = ["retention", *QUESTION, "layer", "kind"]
    counted = frame.groupby(by, sort=False)["kept"].agg(["sum", "size"])
    return counted.reset_index().rename(columns={"sum": "kept", "size": "entries"})


def draw(frame: pd.DataFrame) -> Figure:
    """Per retention a row of the picture's kept patches, layer by layer; kept words below."""
    entries = _first(frame)
    vision = pick(entries, kind="vision")
    rows, cols = int(vision["row"].max()) + 1, int(vision["col"].max()) + 1
    picture, layers, retentions = (
        pixels(entries, rows, cols),
        layers_shown(entries),
        _retentions(entries),
    )
    heights = [
        1.1 * len(retentions),
        0.8 + 0.17 * entries[entries["kind"] != "vision"]["position"].nunique(),
    ]
    figure = sheet(sum(heights))
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    axes = above.subplots(len(retentions), len(layers), squeeze=False)
    for line, retention in zip(axes, retentions, strict=True):
        for place, layer in zip(line, layers, strict=True):
            held = vision[vision["kept"] & (vision["layer"] == layer)]
            held = pick(held, retention=retention)
            mask = np.zeros((rows, cols))
            mask[held["row"].to_numpy(int), held["col"].to_numpy(int)] = 1
            show(place, faded(picture, mask), f"layer {layer}: {len(held)}")
        line[0].set_ylabel(f"{100 * retention:g} % kept")
    widths = [1.2, *[2.0] * len(retentions)]
    places = below.subplots(1, len(widths), width_ratios=widths)
    show(places[0], picture, "the picture")
    for place, retention in zip(places[1:], retentions, strict=True):
        _words(place, pick(entries, retention=retention), layers)
        place.set_title(f"words kept at {100 * retention:g} %")
    for place in places[2:]:
        place.set_yticklabels([])
    return figure


def _words(axes: Axes, entries: pd.DataFrame, layers: list[int]) -> None:
    """A matrix of words and layers; a filled cell is kept."""
    from matplotlib.patches import Rectangle

    text = entries[entries["kind"] != "vision"]
    words = text.drop_duplicates("position").sort_values("position")
    for column, layer in enumerate(layers):
        held = set(text[(text["layer"] == layer) & text["kept"]]["position"])
        for height, position in enumerate(words["position"]):
            corner = (column - 0.45, height - 0.4)
            color = RED if position in held else PALE
            axes.add_patch(Rectangle(corner, 0.9, 0.8, color=color, linewidth=0))
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(len(words) - 0.5, -0.5)
    axes.set_yticks(range(len(words)), words["token"])
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_xlabel("layer")
    axes.grid(False)
    after = [place for place, kind in enumerate(words["kind"]) if kind == "text"]
    if after:
        axes.axhline(after[0] - 0.5, color=BLACK, linewidth=1.2)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Entries kept per layer, mean over the questions. The paper prints no numbers."""
    import pandas as pd

    counted = counts(frame)
    rows = []
    for layer in sorted(counted["layer"].unique()):
        row: dict[tuple[str, str], object] = {("layer", ""): f"{layer}"}
        for retention in _retentions(frame):
            part = pick(counted, layer=layer, retention=retention)
            mean = part.groupby("kind")[["kept", "entries"]].mean()
            heading = f"kept here at {100 * retention:g} %, mean"
            for kind, title in KINDS.items():
                if kind in mean.index:
                    held, present = mean.loc[kind]
                    row[heading, title] = f"{held:.1f} of {present:.1f}"
            row[heading, "all"] = f"{mean['kept'].sum():.1f} of {mean['entries'].sum():.1f}"
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _budgets(frame: pd.DataFrame, deep: bool) -> pd.DataFrame:
    """Entries kept per question in one half of the layers, as a share of those present."""
    layers = sorted(frame["layer"].unique())
    half = layers[len(layers) // 2 :] if deep else layers[: len(layers) // 2]
    share = pick(frame, layer=half).groupby([*QUESTION])["kept"].mean()
    return share.reset_index().rename(columns={"kept": "score"})


def judge_shallow_larger(frame: pd.DataFrame) -> Verdict:
    """Do the shallow half of the layers get larger budgets than the deep half?"""
    if frame["layer"].nunique() < 2:
        return untestable("fewer than two layers")
    return all_of(
        better(
            _budgets(pick(frame, retention=retention), False),
            _budgets(pick(frame, retention=retention), True),
            f"share kept at {100 * retention:g} %, shallow over deep",
        )
        for retention in _retentions(frame)
    )


def judge_text_first(frame: pd.DataFrame) -> Verdict:
    """Does no layer hold a vision entry while it has dropped a word of the question?"""
    counted = counts(frame).pivot_table(
        index=["retention", *QUESTION, "layer"],
        columns="kind",
        values=["kept", "entries"],
        fill_value=0,
    )
    short = counted["kept"]["text"] < counted["entries"]["text"]
    broken = int((short & (counted["kept"]["vision"] > 0)).sum())
    text = f"{broken} of {len(counted)} layers hold vision entries with question text missing; "
    return verdict(broken == 0, f"{text}{int(short.sum())} have question text missing")


KEPT_ENTRIES: Final = Artefact(
    id="T-F5",
    title="Which patches and words each layer keeps",
    source="TGV-KV, Figure 5",
    shows="Text and image entries kept in each layer of LLaVA for one question at 3 % retention.",
    study="kept_maps",
    seconds=15,
    plotted=counts,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Shallow layers get the larger budgets.",
            "TGV-KV, Section 5 on Figure 5",
            judge_shallow_larger,
            "share of entries kept in the shallow half of the layers above that in the deep half, "
            "paired by question, at each retention",
            main=True,
        ),
        Claim(
            "Text stays before any vision entry does.",
            "TGV-KV, Equation 10",
            judge_text_first,
            "no layer holds a vision entry while a word of the question is missing",
        ),
    ),
    caption="Above: patches whose entries a layer keeps, in colour, all others pale; the number "
    "counts them. Below: the prompt's words, filled where a layer keeps them. The line in the word "
    "grid is the picture's place.",
    explanation="The first four and the last entry are always kept. The embedded model's prompts "
    "are short: the paper's 3 % is about 8 entries a layer, about as many as the question has "
    "words, so hardly a layer has room for patches; in the paper's prompts it is about 20. A "
    "milder budget is drawn with it for that reason.",
    alt="The same picture once per layer with the kept patches in colour, and a grid of layers by "
    "words with the kept ones filled.",
)
