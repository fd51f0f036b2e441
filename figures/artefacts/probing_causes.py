"""X-3: knock-outs of attention and swapped cache entries, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.scoring.intervals import difference, mean
from figures.artefacts.probing_shared import (
    Values,
    curves,
    layered,
    legend_under,
    line,
    resampled_correlation,
)
from figures.artefacts.shared import here, pick
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import canvas, nth
from figures.verdicts import Verdict, above, at_most, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

READING: Final = "text to vision"


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Effects per pair and layer, accuracy, and preference for the other image."""
    import pandas as pd

    cut, swapped = pick(frame, panel="knockout"), pick(frame, panel="patch")
    parts = [
        curves(cut, ("pair", "layer"), "effect").assign(measure="effect"),
        curves(cut, ("pair", "layer"), "given").assign(measure="given"),
    ]
    for name in ("own", "donor", "preference"):
        if len(swapped):
            parts.append(curves(swapped, ("layer",), name).assign(measure=name))
    return pd.concat(parts, ignore_index=True)


def draw(frame: pd.DataFrame) -> Figure:
    """Change of log-probability, accuracy, and whose answer is given."""
    data = plotted(frame)
    figure, axes = canvas(1, 3, height=3.2)
    for index, pair in enumerate(sorted(data["pair"].dropna().unique())):
        cells, shift = pick(data, pair=pair), 0.16 * (index - 1)
        line(axes[0, 0], pick(cells, measure="effect"), nth(index), f"{pair}", shift)
        line(axes[0, 1], pick(cells, measure="given"), nth(index), f"{pair}", shift)
    for index, (name, label) in enumerate((("own", "own image's"), ("donor", "other image's"))):
        cells = pick(data, measure=name)
        if len(cells):
            line(axes[0, 2], cells, nth(index + 3), label)
    axes[0, 0].set_ylabel("change of log p(answer), nats")
    axes[0, 0].set_title("cut around a layer")
    axes[0, 1].set_ylabel("share of right answers")
    axes[0, 1].set_title("the same: right answers")
    axes[0, 2].set_ylabel("share of answers")
    axes[0, 2].set_title("swapped from a layer on")
    for place in axes[0, ::2]:
        legend_under(place)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every curve with its interval, one row a layer."""
    by_layer: pd.DataFrame = layered(plotted(frame), ("measure", "pair"), here(frame), ".2f")
    return by_layer


def _harm(frame: pd.DataFrame) -> pd.DataFrame:
    """Loss of log-probability per question and layer when text is cut off from vision."""
    rows = pick(frame, panel="knockout", pair=READING)
    return rows.assign(value=-rows["effect"])


def _known(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    rows = pick(frame, panel="information", measure=measure)
    return rows[rows["item"] >= 0]


def _gain(known: Values) -> Values:
    """Increase (..., layers) around each layer, the mean of three, which a knock-out spans."""
    gain = np.diff(known, axis=-1, prepend=known[..., :1])
    from scipy.ndimage import uniform_filter1d

    return np.asarray(uniform_filter1d(gain, 3, axis=-1, mode="constant"))


def judge_attention(frame: pd.DataFrame) -> Verdict:
    """Does cutting hurt most where the attention carries most information?"""
    return resampled_correlation(
        _harm(frame),
        _known(frame, "attention information"),
        "rank correlation over layers of the loss and the information of attention",
    )


def judge_learning(frame: pd.DataFrame) -> Verdict:
    """Does cutting hurt most around the layers where text learns the answer?"""
    return resampled_correlation(
        _harm(frame),
        _known(frame, "decoded from last"),
        "rank correlation over layers of the loss and the gain in what the last token knows",
        of_right=_gain,
    )


def judge_vision(frame: pd.DataFrame) -> Verdict:
    """Do answers survive without attention among vision tokens better than without text's?"""
    rows = pick(frame, panel="knockout")
    lead = difference(pick(rows, pair="vision to vision"), pick(rows, pair=READING), "effect")
    return above(lead, 0.0, "change of log-probability, vision to vision minus text to vision")


def judge_entries(frame: pd.DataFrame) -> Verdict:
    """Does the answer follow the entries of early layers and not those of the last one?"""
    rows = pick(frame, panel="patch")
    if rows.empty:
        return untestable("no two questions had the same words and different answers")
    ends = (rows["layer"].min(), rows["layer"].max())
    first, last = (mean(pick(rows, layer=layer), "donor") for layer in ends)
    return all_of(
        [
            above(first, 0.5, f"share that follows entries swapped from layer {ends[0]:g} on"),
            at_most(last, 0.5, f"share that follows entries swapped in layer {ends[1]:g} only"),
        ]
    )


CAUSES: Final = Artefact(
    id="X-3",
    title="What attention and cache entries are needed for",
    source="Our own",
    shows="Not in the papers: their observations are correlations, these are interventions.",
    study="causal_profile",
    seconds=30,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Cutting text off from vision hurts most where the attention is most informative.",
            "Ours",
            judge_attention,
            "Spearman's rank correlation over layers above 0, interval over questions",
        ),
        Claim(
            "Cutting text off from vision hurts most where the last token learns the answer.",
            "Ours",
            judge_learning,
            "the same, with the gain in linear decodability over three layers",
        ),
        Claim(
            "Attention among vision tokens matters less for the answer than text looking at them.",
            "Ours, on the redundancy that both papers rest on",
            judge_vision,
            "paired difference of the change of log-probability above 0, all layers",
        ),
        Claim(
            "The answer is read from entries of early and middle layers, not of the last.",
            "Ours, on TVB",
            judge_entries,
            "more than half of the answers follow another image's entries from the first layer on, "
            "at most half those of the last layer alone",
        ),
    ),
    caption="Left and middle: the right answer's log-probability and accuracy when attention is "
    "cut in a window of layers around each layer; curves are set apart sideways. Right: whose "
    "answer is given when the vision entries come from another image from a layer on.",
    explanation="Cutting from text to vision also blinds generated tokens. A deep fall marks the "
    "layers at which the question reads the image; evicting vision entries after them is cheap.",
    alt="Three panels of curves over layers: change of log-probability, accuracy, share of answers "
    "for either image.",
)
