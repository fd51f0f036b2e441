"""X-4: attention, scores and kept entries against the cells that hold what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.scoring.intervals import difference, mean
from figures.artefacts.probing_shared import curves, layered, legend_under, line
from figures.artefacts.shared import here, pick, short
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import GREY, METHODS, canvas, nth
from figures.verdicts import Verdict, above, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCORES: Final = ("TV attention", "TWR score", "accumulated attention")


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC per score and layer, and lift of the asked words' weight."""
    import pandas as pd

    cells = curves(pick(frame, panel="cells"), ("score", "layer"), "auc").assign(measure="auc")
    words = curves(pick(frame, panel="words"), ("score", "layer"), "lift").assign(measure="lift")
    return pd.concat([cells, words], ignore_index=True)


def draw(frame: pd.DataFrame) -> Figure:
    """Scores, kept entries per method, and words."""
    data = plotted(frame)
    figure, axes = canvas(1, 3, height=3.3)
    for index, name in enumerate(SCORES):
        line(axes[0, 0], pick(data, score=name), nth(index + 2), name)
    methods = sorted(set(pick(data, measure="auc")["score"]) - set(SCORES))
    for index, name in enumerate(methods):
        method = name.removeprefix("kept by ")
        known = METHODS.get(method.lower().replace("-", ""), nth(index + 2))
        line(axes[0, 1], pick(data, score=name), known, method)
    for place in axes[0, :2]:
        place.axhline(0.5, color=GREY, ls=":", lw=1.2, label="chance")
        place.set_ylabel("AUC over patches")
    line(axes[0, 2], pick(data, measure="lift"), nth(6), "weight on asked words")
    axes[0, 2].axhline(1, color=GREY, ls=":", lw=1.2, label="chance")
    axes[0, 2].set_ylabel("times chance")
    for place, title in zip(axes[0], ("scores", "kept entries", "dominant words"), strict=True):
        place.set_title(title)
        legend_under(place)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """AUC of every score and lift of the words, one row a layer."""
    by_layer: pd.DataFrame = layered(plotted(frame), ("score", "measure"), here(frame), ".2f")
    return by_layer


def _auc(frame: pd.DataFrame, score: str) -> pd.DataFrame:
    return pick(frame, panel="cells", score=score).dropna(subset=["auc"])


def judge_grounded(frame: pd.DataFrame) -> Verdict:
    """Does attention from text single out the asked patches?"""
    return above(mean(_auc(frame, SCORES[0]), "auc"), 0.5, "AUC of TV attention, all layers")


def judge_weights(frame: pd.DataFrame) -> Verdict:
    """Do TWR's weights ground better than plain attention from text?"""
    lead = difference(_auc(frame, SCORES[1]), _auc(frame, SCORES[0]), "auc")
    return above(lead, 0.0, "AUC of TWR minus AUC of TV attention, all layers")


def judge_kept(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep the asked patches rather than others, and more so than random eviction?"""
    tgvkv, random = _auc(frame, "kept by TGV-KV"), _auc(frame, "kept by random")
    if tgvkv.empty or random.empty:
        return untestable("TGV-KV or random eviction was not among the methods")
    return all_of(
        [
            above(mean(tgvkv, "auc"), 0.5, "AUC of what TGV-KV keeps"),
            above(difference(tgvkv, random, "auc"), 0.0, "the same, minus random eviction"),
        ]
    )


def judge_words(frame: pd.DataFrame) -> Verdict:
    """Are dominant words those that say what is asked?"""
    rows = pick(frame, panel="words")
    return all_of(
        above(
            mean(pick(rows, task=task), "lift"),
            1.0,
            f"weight on asked words, times chance, all layers, {short(task)}",
        )
        for task in dict.fromkeys(rows["task"])
    )


GROUNDING: Final = Artefact(
    id="X-4",
    title="Grounding: what is looked at and what is kept",
    source="Our own",
    shows="Not in the papers: whether text-grounded ranking is grounded in what was asked.",
    study="grounding_profile",
    seconds=25,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Text looks at the patches that hold what is asked.",
            "Ours, on TGV-KV, Eq. 8",
            judge_grounded,
            "mean AUC over layers above 0.5",
        ),
        Claim(
            "Weighting text queries by dominance grounds better than counting them alike.",
            "Ours, on TGV-KV, Eq. 8",
            judge_weights,
            "paired difference of AUC, TWR minus TV attention, above 0",
        ),
        Claim(
            "TGV-KV keeps the asked patches.",
            "Ours",
            judge_kept,
            "mean AUC of kept entries above 0.5, and above that of random eviction",
        ),
        Claim(
            "Dominant text tokens are the words that say what is asked.",
            "Ours, on TGV-KV, Figure 2",
            judge_words,
            "their share of the weight above their share of the text tokens, all layers, in each "
            "task",
        ),
    ),
    caption="AUC: probability that a patch of the asked object scores above another one (kept "
    "entries score 1, evicted ones 0); dotted: chance. Right: share of the text weight on words "
    "that say what is asked, over their share of the text.",
    explanation="The embedded task knows which patches hold the asked object. A score at chance "
    "in a layer ranks patches of that layer at random as far as the question is concerned.",
    alt="Three panels of curves over layers: AUC of scores, AUC of kept entries, lift of words.",
)
