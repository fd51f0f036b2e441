"""T-F2 and T-F7: attention maps by depth, and the words that dominate the text block."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.scoring.intervals import difference, mean
from figures.artefacts.probing_gap import show_map
from figures.artefacts.shared import here, pick
from figures.compound import all_of, any_of
from figures.contract import Artefact, Claim
from figures.style import SKY, canvas, sheet
from figures.verdicts import Verdict, above, differs, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DOMINANT: Final = 2.0
"""A word dominates if its weight is at least this many times the even share."""

VARIES: Final = 2.0


def _layers(frame: pd.DataFrame) -> list[int]:
    return sorted(int(layer) for layer in frame["layer"].unique())


def maps(frame: pd.DataFrame) -> pd.DataFrame:
    """Attention by layer, query and key."""
    columns = ["layer", "position", "key", "kind", "key_kind", "value"]
    return pick(frame, panel="map")[columns]


def weights(frame: pd.DataFrame) -> pd.DataFrame:
    """Weight of each text token per layer, with its share of the even weight."""
    words = pick(frame, panel="weight")[["layer", "key", "token", "value"]].copy()
    count = words.groupby("layer")["value"].transform("size")
    return words.assign(times_even=words["value"] * count)


def draw_depths(frame: pd.DataFrame) -> Figure:
    """One map per layer, and below it the rows of the text alone."""
    layers = _layers(frame)
    figure = sheet(4.0)
    axes = figure.subplots(2, len(layers), squeeze=False, height_ratios=(3, 1.3))
    for (whole, below), layer in zip(axes.T, layers, strict=True):
        attention = pick(maps(frame), layer=layer)
        drawn = show_map(whole, attention)
        whole.set_title(f"layer {layer}")
        whole.set_xlabel("")
        show_map(below, pick(attention, kind="text"))
        below.set_aspect("auto")
        below.yaxis.get_major_locator().set_params(integer=True)
        below.set_ylabel("text query")
    for place in axes[:, 1:].flat:
        place.set_ylabel("")
    figure.colorbar(drawn, ax=axes, label="attention", aspect=30)
    return figure


def draw_words(frame: pd.DataFrame) -> Figure:
    """The shallowest map, its text block enlarged, dominant words boxed."""
    from matplotlib.patches import Rectangle

    layer = _layers(frame)[0]
    attention = pick(maps(frame), layer=layer)
    words = pick(weights(frame), layer=layer).sort_values("key")
    figure, axes = canvas(1, 2, height=3.2)
    whole, place = axes[0]
    figure.colorbar(show_map(whole, attention), ax=whole, label="attention", shrink=0.8)
    whole.set_title(f"layer {layer}, all tokens")
    text = attention[(attention["kind"] == "text") & (attention["key_kind"] == "text")]
    first, size = int(text["key"].min()), text["key"].nunique()
    grid = np.full((size, size), np.nan)
    rows, columns = (text[name].to_numpy(int) - first for name in ("position", "key"))
    grid[rows, columns] = text["value"]
    drawn = place.imshow(grid, cmap="magma", vmin=0, interpolation="nearest")
    figure.colorbar(drawn, ax=place, label="attention", shrink=0.8)
    place.set_xticks(range(size), words["token"], rotation=60, ha="right", rotation_mode="anchor")
    place.set_yticks(range(size), words["token"])
    place.set_title(f"layer {layer}, text to text")
    place.grid(False)
    for key in words.loc[words["times_even"] >= DOMINANT, "key"]:
        column = int(key) - first
        corner = (column - 0.5, column - 0.5)
        box = Rectangle(corner, 1, size - column, fill=False, edgecolor=SKY, lw=1.8)
        place.add_patch(box)
    return figure


def table_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Weights of the text tokens, one row a token, one column a layer."""
    import pandas as pd

    words, heading = weights(frame), f"weight (Eq. 7), {here(frame)}"
    rows = []
    for key, token in words.drop_duplicates("key")[["key", "token"]].itertuples(index=False):
        row: dict[tuple[str, str], object] = {("position", ""): f"{key}", ("token", ""): token}
        for layer in _layers(frame):
            weight = pick(words, key=key, layer=layer)["value"].iloc[0]
            row[heading, f"layer {layer}"] = f"{weight:.3f}"
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean attention per pair of each block and layer."""
    attention = maps(frame)
    named = attention.assign(
        block=attention["kind"].str[0].str.upper() + attention["key_kind"].str[0].str.upper()
    )
    wanted = named[named["block"].isin(["TV", "TT", "VV"])]
    return wanted.groupby(["layer", "block"])["value"].mean().reset_index()


def table_depths(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean attention of the blocks, one row a layer. The paper prints no numbers."""
    import pandas as pd

    means = blocks(frame).pivot(index="layer", columns="block", values="value")
    heading = f"mean attention, {here(frame)}"
    rows: list[dict[tuple[str, str], object]] = []
    for layer, row in means.iterrows():
        named = {(heading, str(block)): f"{value:.4f}" for block, value in row.items()}
        rows.append({("layer", ""): f"{layer}", **named})
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def judge_dominant(frame: pd.DataFrame) -> Verdict:
    """Does the heaviest word weigh twice the even share, and more than by chance, in each layer?"""
    rows = pick(frame, panel="heaviest")
    parts = []
    for layer in _layers(rows):
        heaviest = pick(rows, layer=layer)
        beyond = heaviest.assign(value=heaviest["value"] - heaviest["shuffled"])
        what = f"heaviest word of layer {layer}, times the even share"
        parts += [
            above(mean(heaviest, "value"), DOMINANT, what),
            above(mean(beyond, "value"), 0.0, f"{what}, minus that of shuffled attention"),
        ]
    return all_of(parts)


def judge_depth(frame: pd.DataFrame) -> Verdict:
    """Does the trough between text and vision differ by a factor of two between two layers?"""
    rows = pick(frame, panel="trough")
    layers = _layers(rows)
    if len(layers) < 2:
        return untestable("fewer than two layers were looked at")
    pairs = []
    for one, other in itertools.combinations(layers, 2):
        lead = difference(pick(rows, layer=one), pick(rows, layer=other), "value")
        what = f"log of TV over TT, layer {one} minus layer {other}"
        pairs.append(differs(lead, np.log(VARIES), what))
    return any_of(pairs)


DOMINANT_WORDS: Final = Artefact(
    id="T-F2",
    title="Dominant text tokens",
    source="TGV-KV, Figure 2",
    shows="Attention maps of two models, layer 1, with the text block enlarged and dominant text "
    "tokens boxed.",
    study="attention_maps",
    seconds=8,
    plotted=weights,
    draw=draw_words,
    table=table_words,
    claims=(
        Claim(
            "Some text tokens dominate the attention of later text.",
            "TGV-KV, Figure 2",
            judge_dominant,
            "mean over questions of the heaviest word's weight above twice the even share, and "
            "above that after shuffling, in every layer shown",
        ),
    ),
    caption="Head-mean attention of one question in a shallow layer (logarithmic, image between "
    "the lines), and its text block (linear); a box marks a word with at least twice the even "
    "weight.",
    explanation="A bright vertical line is a word that all later words look at. Whether such words "
    "are those that say what is asked is judged in X-4 over many questions.",
    alt="A triangular attention map and an enlarged square of words against words.",
)

MAPS_BY_DEPTH: Final = Artefact(
    id="T-F7",
    title="Attention maps by depth",
    source="TGV-KV, Figure 7",
    shows="Attention maps at several depths, logarithmic.",
    study="attention_maps",
    seconds=8,
    plotted=blocks,
    draw=draw_depths,
    table=table_depths,
    claims=(
        Claim(
            "The trough between text and vision varies in depth by layer.",
            "TGV-KV, Section 3 on Figure 7",
            judge_depth,
            "TV over TT, mean attention per pair, differs by more than a factor of two between two "
            "of the layers shown, at their level by Holm over the pairs",
        ),
    ),
    caption="Head-mean attention of one question in a shallow, a middle and the last layer, image "
    "between the lines; below, the rows of the text enlarged.",
    explanation="Rows are queries, columns keys. What stands between the lines in the lower panels "
    "is what text sees of the image: how bright it is decides a layer's budget under TVB. Where TV "
    "over TT exceeds 1 there is no trough.",
    alt="Three triangular attention maps, and below each an enlarged strip of the text's rows.",
)
