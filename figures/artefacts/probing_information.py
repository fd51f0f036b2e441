"""X-2: information per layer beside the budgets that TVB hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.scoring.intervals import difference
from figures.artefacts.probing_shared import (
    layered,
    legend_under,
    line,
    resampled_correlation,
)
from figures.artefacts.shared import here, pick
from figures.contract import Artefact, Claim
from figures.style import GREY, METHODS, canvas, nth
from figures.verdicts import Verdict, above, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ATTENTION, BUDGET = "attention information", "TVB budget"
STATES: Final = {
    "Gaussian information": "four components, Gaussian",
    "Gaussian information, first": "first component, Gaussian",
    "k-NN information, first": "first component, k-NN",
}
DECODED: Final = ("decoded from vision", "decoded from text", "decoded from last")


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Every measure per layer with its interval over questions."""
    return frame[frame["item"] < 0][["measure", "layer", "value", "low", "high"]]


def draw(frame: pd.DataFrame) -> Figure:
    """Budgets beside information of attention, of states, and what can be decoded."""
    data = plotted(frame)
    figure, axes = canvas(2, 2, height=2.7)
    line(axes[0, 0], pick(data, measure=BUDGET), METHODS["tgvkv"], BUDGET)
    axes[0, 0].set_title("budget")
    axes[0, 0].set_ylabel("share of the total")
    line(axes[0, 1], pick(data, measure=ATTENTION), nth(0), "text-vision attention")
    axes[0, 1].set_title("information of attention")
    axes[0, 1].set_ylabel("nats")
    for index, (measure, label) in enumerate(STATES.items()):
        line(axes[1, 0], pick(data, measure=measure), nth(index + 2), label, 0.16 * (index - 1))
    axes[1, 0].set_title("information between text and vision states")
    axes[1, 0].set_ylabel("nats")
    for index, measure in enumerate(DECODED):
        accuracy = pick(data, measure=measure)
        line(axes[1, 1], accuracy, nth(index + 4), measure.removeprefix("decoded from "))
    chance = pick(data, measure="chance")["value"].max()
    axes[1, 1].axhline(chance, color=GREY, ls=":", lw=1.2, label="commonest answer")
    axes[1, 1].set_title("answer decoded from mean states")
    axes[1, 1].set_ylabel("accuracy")
    for place in axes[1]:
        legend_under(place, 2)
    for place in axes[0]:
        place.set_ylim(bottom=0)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every measure with its interval, one row a layer."""
    by_layer: pd.DataFrame = layered(plotted(frame), ("measure",), f"{here(frame)}, 95 % interval")
    return by_layer


def judge_attention(frame: pd.DataFrame) -> Verdict:
    """Do budgets follow the information of the attention?"""
    single = frame[frame["item"] >= 0]
    return resampled_correlation(
        pick(single, measure=BUDGET),
        pick(single, measure=ATTENTION),
        "rank correlation over layers of TVB budget and information of attention",
    )


def judge_states(frame: pd.DataFrame) -> Verdict:
    """Do budgets follow the information between text and vision states?"""
    single = frame[frame["item"] >= 0]
    return resampled_correlation(
        pick(single, measure=BUDGET),
        pick(single, measure="Gaussian information"),
        "rank correlation over layers of TVB budget and Gaussian information of states",
    )


def judge_shallow(frame: pd.DataFrame) -> Verdict:
    """Do the shallow half of the layers get larger budgets than the deep half?"""
    budgets = pick(frame[frame["item"] >= 0], measure=BUDGET)
    layers = sorted(budgets["layer"].unique())
    if len(layers) < 2:
        return untestable("fewer than two layers")
    middle = len(layers) // 2
    shallow, deep = (pick(budgets, layer=list(part)) for part in (layers[:middle], layers[middle:]))
    return above(difference(shallow, deep, "value"), 0.0, "mean budget, shallow minus deep half")


INFORMATION: Final = Artefact(
    id="X-2",
    title="Information by layer, beside TVB's budgets",
    source="Our own",
    shows="Not in the papers: the premise of text-vision budgeting, measured.",
    study="information_profile",
    seconds=30,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "TVB's budgets follow the information in text-vision attention.",
            "Ours, on TGV-KV, Eq. 5",
            judge_attention,
            "Spearman's rank correlation over layers above 0, interval over questions",
        ),
        Claim(
            "TVB's budgets follow the information that text states share with vision states.",
            "Ours, on TGV-KV, Eq. 5",
            judge_states,
            "the same; a question counts by what it adds to the information of all",
        ),
        Claim(
            "TVB gives shallow layers the larger budgets.",
            "TGV-KV, Section 4",
            judge_shallow,
            "paired difference of the mean budget, shallow minus deep half of the layers, above 0",
        ),
    ),
    caption="Above: share of the budget under TVB, and mutual information of the text-vision block "
    "of attention. Below: information between mean text and mean vision states (the Gaussian "
    "estimate of four principal components a side, and of the first one beside the "
    "k-nearest-neighbour estimate), and cross-validated accuracy of a linear probe for the answer "
    "(mean vision states, mean text states, state of the last token). Bands: 95 % intervals over "
    "questions.",
    explanation="A budget is attention mass, information of attention is how differently words "
    "look at the image: much mass can be spread evenly, and then says nothing. Information of "
    "states is what text has learnt about the image so far; it can only grow where text reads it. "
    "The Gaussian estimate sees correlation only; where k-NN lies above it for the first "
    "components, there is more. k-NN takes no interval, and no more components: its bias is too "
    "large then.",
    alt="Four panels of curves over layers: budget, information of attention, information of "
    "states, accuracy of linear probes.",
)
