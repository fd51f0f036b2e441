"""T-F1: the modality gap: similarity, attention, and what ranking by attention evicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import difference, mean
from figures.artefacts.probing_shared import curves, layered
from figures.artefacts.shared import here, pick
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, GREY, RED, SKY, canvas
from figures.verdicts import Verdict, above

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: Final = {"vision": BLUE, "text": RED, "system": GREY}
LOWEST: Final = 1e-5
"""Attention that is drawn as black in logarithmic maps."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean similarity per kind and k; the first question's accumulated attention by position."""
    import pandas as pd

    alike = curves(pick(frame, panel="similarity"), ("kind", "k")).assign(panel="similarity")
    summed = _first(pick(frame, panel="accumulated"))
    columns = ["panel", "position", "kind", "value", "kept"]
    return pd.concat([alike, summed[columns]], ignore_index=True)


def draw(frame: pd.DataFrame) -> Figure:
    """(a) bars of similarity, (b) a map, (c) attention accumulated by each token."""
    figure, axes = canvas(1, 3, height=3.0)
    _similarity(axes[0, 0], curves(pick(frame, panel="similarity"), ("kind", "k")))
    drawn = show_map(axes[0, 1], _first(pick(frame, panel="map")))
    figure.colorbar(drawn, ax=axes[0, 1], location="bottom", label="attention", aspect=15)
    axes[0, 1].set_title(f"(b) attention, layer {pick(frame, panel='map')['layer'].iloc[0]:g}")
    _accumulated(axes[0, 2], _first(pick(frame, panel="accumulated")))
    return figure


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    one = frame.iloc[0]
    return pick(frame, task=one["task"], seed=one["seed"], item=one["item"])


def _similarity(axes: Axes, data: pd.DataFrame) -> None:
    steps = sorted(data["k"].unique())
    for shift, kind in ((-0.2, "vision"), (0.2, "text")):
        bars = pick(data, kind=kind).sort_values("k")
        error = [bars["value"] - bars["low"], bars["high"] - bars["value"]]
        places = np.arange(len(steps)) + shift
        axes.bar(places, bars["value"], 0.38, yerr=error, color=KINDS[kind], label=kind, capsize=2)
    axes.set_xticks(range(len(steps)), [f"k = {k:g}" for k in steps])
    axes.set_ylim(top=1.25)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("mean cosine with neighbours")
    axes.set_title("(a) local similarity")
    axes.legend(loc="upper center", ncols=2)


def show_map(axes: Axes, rows: pd.DataFrame) -> Any:
    """Attention of some queries on a logarithmic scale, with the borders of the image."""
    from matplotlib.colors import LogNorm

    first, last = int(rows["position"].min()), int(rows["position"].max())
    grid = np.full((last - first + 1, int(rows["key"].max()) + 1), np.nan)
    places = rows["position"].to_numpy(int) - first
    grid[places, rows["key"].to_numpy(int)] = rows["value"].clip(LOWEST)
    extent = (-0.5, grid.shape[1] - 0.5, last + 0.5, first - 0.5)
    drawn = axes.imshow(
        grid, norm=LogNorm(LOWEST, 1), cmap="magma", interpolation="nearest", extent=extent
    )
    patches = rows.loc[rows["key_kind"] == "vision", "key"]
    for border in (patches.min() - 0.5, patches.max() + 0.5):
        axes.axvline(border, color=SKY, lw=0.8)
        if first < border < last:
            axes.axhline(border, color=SKY, lw=0.8)
    axes.grid(False)
    axes.set_xlabel("key")
    axes.set_ylabel("query")
    return drawn


def _accumulated(axes: Axes, tokens: pd.DataFrame) -> None:
    for kind, color in KINDS.items():
        part = pick(tokens, kind=kind)
        axes.plot(part["position"], part["value"], ".", ms=3, color=color, label=kind)
    axes.axhline(tokens.loc[tokens["kept"], "value"].min(), color="#000000", ls=":", lw=1.2)
    share = 100 * tokens["kept"].mean()
    axes.set_yscale("log")
    axes.set_xlabel("position")
    axes.set_ylabel("accumulated attention")
    axes.set_title(f"(c) top {share:.0f} % above the line")
    axes.legend()


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Similarity, block means and evicted shares per layer. The paper prints no numbers."""
    import pandas as pd

    alike = pick(frame, panel="similarity", k=frame["k"].min())
    parts = [
        curves(pick(frame, panel="block", kind=["TV", "TT", "VV"]), ("panel", "layer", "kind")),
        curves(pick(frame, panel="evicted"), ("panel", "layer", "kind")),
        curves(alike, ("panel", "layer", "kind")),
    ]
    by_layer: pd.DataFrame = layered(
        pd.concat(parts, ignore_index=True), ("panel", "kind"), f"{here(frame)}, mean", ".2g"
    )
    return by_layer


def judge_alike(frame: pd.DataFrame) -> Verdict:
    """Are vision tokens more like their neighbours than text tokens, at every k?"""
    rows = pick(frame, panel="similarity")
    return all_of(
        above(
            difference(pick(rows, kind="vision", k=k), pick(rows, kind="text", k=k), "value"),
            0.0,
            f"cosine with {k:g} neighbours, vision minus text, all layers",
        )
        for k in sorted(rows["k"].unique())
    )


def judge_trough(frame: pd.DataFrame) -> Verdict:
    """Is attention from text to vision weaker than within either modality?"""
    rows = pick(frame, panel="block")
    return all_of(
        above(
            difference(pick(rows, kind=block), pick(rows, kind="TV"), "value"),
            0.0,
            f"mean attention, {block} minus TV, all layers",
        )
        for block in ("TT", "VV")
    )


def judge_text_evicted(frame: pd.DataFrame) -> Verdict:
    """Does ranking by accumulated attention evict most of the text?"""
    rows = pick(frame, panel="accumulated", kind="text")
    lost = rows.assign(value=1.0 - rows["kept"].astype(float))
    return above(mean(lost, "value"), 0.5, "share of the text that is evicted")


MODALITY_GAP: Final = Artefact(
    id="T-F1",
    title="The modality gap",
    source="TGV-KV, Figure 1",
    shows="Similarity of neighbouring tokens, a layer's attention map, and attention accumulated "
    "per token with the line of the top 5 %.",
    study="modality_gap",
    seconds=15,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Vision tokens are alike, text tokens are diverse.",
            "TGV-KV, Figure 1 (a)",
            judge_alike,
            "paired difference of mean cosine, vision minus text, above 0 for every k",
        ),
        Claim(
            "The text-to-vision block is a low-attention trough.",
            "TGV-KV, Figure 1 (b)",
            judge_trough,
            "mean attention per pair of TT and of VV above that of TV, mean over layers",
            main=True,
        ),
        Claim(
            "Ranking by accumulated attention evicts most of the text.",
            "TGV-KV, Figure 1 (c)",
            judge_text_evicted,
            "more than half of the question's tokens fall below the line",
        ),
    ),
    caption="(a) Mean cosine similarity of hidden states with neighbours of the same kind, all "
    "layers. (b) Head-mean attention of one question, logarithmic, image between the lines. "
    "(c) Attention that each token collects from all queries in all layers.",
    explanation="Two of the three follow from counting before a model learns anything. A token "
    "near the start is seen by every later query, so accumulated attention falls with position and "
    "text at the end collects least. And a query that sees many keys gives each of them little: "
    "per pair, text can give N patches no more than 1/N on average, even if it looks at nothing "
    "else.",
    alt="Bars of similarity by kind, a triangular attention map, and dots of accumulated attention "
    "by position.",
)
