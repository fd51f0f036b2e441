"""T-F5: which patches and which words each layer keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from figures.artefacts.pictures import faded, pixels, show
from figures.artefacts.shared import pick
from figures.contract import Artefact, Claim
from figures.estimates import QUESTION
from figures.style import BLACK, RED, canvas
from figures.verdicts import Verdict, better, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: Final = 8
COLUMNS: Final = 4
PALE: Final = "#E4E4E4"


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    named = frame.iloc[0]
    return pick(frame, **{name: named[name] for name in QUESTION})


def _layers(frame: pd.DataFrame) -> list[int]:
    """All layers, or eight of them evenly from first to last."""
    layers = sorted(int(layer) for layer in frame["layer"].unique())
    if len(layers) <= PANELS:
        return layers
    return [layers[int(place)] for place in np.linspace(0, len(layers) - 1, PANELS).round()]


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Entries kept and present per question, layer and kind."""
    found = frame.groupby([*QUESTION, "layer", "kind"], sort=False)["kept"].agg(["sum", "size"])
    return found.reset_index().rename(columns={"sum": "kept", "size": "entries"})


def draw(frame: pd.DataFrame) -> Figure:
    """Kept patches layer by layer over the first question's picture, kept words below."""
    from matplotlib.gridspec import GridSpec

    own = _first(frame)
    vision = pick(own, kind="vision")
    rows, cols = int(vision["row"].max()) + 1, int(vision["col"].max()) + 1
    picture, layers = pixels(own, rows, cols), _layers(own)
    lines = -(-len(layers) // COLUMNS)
    figure, axes = canvas(lines + 1, COLUMNS, height=2.0)
    for place, layer in zip(axes[:lines].flat, layers, strict=False):
        mask = np.zeros((rows, cols))
        held = vision[(vision["layer"] == layer) & vision["kept"]]
        mask[held["row"].to_numpy(int), held["col"].to_numpy(int)] = 1
        show(place, faded(picture, mask), f"layer {layer}: {len(held)} patches")
    for place in axes[:lines].flat[len(layers) :]:
        place.set_visible(False)
    for place in axes[lines]:
        place.remove()
    grid: GridSpec = axes[0, 0].get_gridspec()
    _words(figure.add_subplot(grid[lines, :]), own, layers)
    return figure


def _words(axes: Axes, own: pd.DataFrame, layers: list[int]) -> None:
    """A matrix of layers and words; a filled cell is kept."""
    from matplotlib.patches import Rectangle

    text = own[own["kind"] != "vision"]
    words = text.drop_duplicates("position").sort_values("position")
    places = {position: place for place, position in enumerate(words["position"])}
    kept = np.zeros((len(layers), len(words)))
    for height, layer in enumerate(layers):
        for position in text[(text["layer"] == layer) & text["kept"]]["position"]:
            kept[height, places[position]] = 1
    for (height, place), value in np.ndenumerate(kept):
        corner = (place - 0.45, height - 0.42)
        axes.add_patch(Rectangle(corner, 0.9, 0.84, color=RED if value else PALE, linewidth=0))
    axes.set_xlim(-0.5, len(words) - 0.5)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xticks(range(len(words)), words["token"], rotation=60, ha="right")
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_ylabel("layer")
    axes.grid(False)
    axes.set_title("text entries kept (filled)")
    first_after = [p for p, kind in enumerate(words["kind"]) if kind == "text"]
    if first_after:
        axes.axvline(first_after[0] - 0.5, color=BLACK, linewidth=1.2)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Entries kept per layer, mean over the questions. The paper prints no numbers."""
    import pandas as pd

    mean = counts(frame).groupby(["layer", "kind"])[["kept", "entries"]].mean().reset_index()
    rows = []
    for layer, own in mean.groupby("layer"):
        row: dict[tuple[str, str], object] = {("layer", ""): f"{layer}"}
        total = own["kept"].sum()
        for kind, title in {"vision": "vision", "text": "question", "system": "before it"}.items():
            found = pick(own, kind=kind)
            if len(found):
                first = found.iloc[0]
                row["kept here, mean", title] = f"{first['kept']:.1f} of {first['entries']:.1f}"
        row["kept here, mean", "all"] = f"{total:.1f} of {own['entries'].sum():.1f}"
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
    return better(_budgets(frame, False), _budgets(frame, True), "share kept, shallow over deep")


def judge_text_first(frame: pd.DataFrame) -> Verdict:
    """Does no layer hold a vision entry while it has dropped a word of the question?"""
    found = counts(frame).pivot_table(
        index=[*QUESTION, "layer"], columns="kind", values=["kept", "entries"], fill_value=0
    )
    short = found["kept"]["text"] < found["entries"]["text"]
    broken = int((short & (found["kept"]["vision"] > 0)).sum())
    text = f"{broken} of {len(found)} layers hold vision entries with question text missing; "
    return verdict(broken == 0, f"{text}{int(short.sum())} have question text missing")


KEPT_ENTRIES: Final = Artefact(
    id="T-F5",
    title="Which patches and words each layer keeps",
    source="TGV-KV, Figures 5 and 8",
    shows="Text and image entries kept in each layer of LLaVA for one question at 3 % retention.",
    study="kept_maps",
    plotted=counts,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Shallow layers get the larger budgets.",
            "TGV-KV, Section 5 on Figure 5",
            judge_shallow_larger,
            "share of entries kept in the shallow half of the layers above that in the deep half, "
            "paired by question",
        ),
        Claim(
            "Text stays before any vision entry does.",
            "TGV-KV, Equation 10",
            judge_text_first,
            "no layer holds a vision entry while a word of the question is missing",
        ),
    ),
    caption="Above: patches whose entries a layer keeps, in colour, all others pale. Below: the "
    "words of the prompt; filled cells are kept. The black line is the picture's place.",
    explanation="The first four and the last entry are always kept. The embedded model's prompts "
    "are short: 3 % of the cache is about 8 entries a layer, about as many as the question has "
    "words, so few layers have room for patches. In the paper's prompts it is about 20.",
    alt="The same picture once per layer with the kept patches in colour, and a grid of layers by "
    "words with the kept ones filled.",
)
