"""L-T8 and L-F4: what is left at ever smaller shares of the token-layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.prefill_tables import COCO, GQA, MME, NOCAPS, POPE, SEED, VIZWIZ, efficiency
from figures.artefacts.prefill_tables import layout as prefill_layout
from figures.artefacts.score_tables import HERE, averages, lines, table
from figures.artefacts.shared import legend_below, level, pick, planned
from figures.compound import all_of, worst_of
from figures.contract import Artefact, Claim
from figures.style import canvas
from figures.verdicts import Verdict, better, keeps, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from figures.artefacts.layout import Layout

LAYOUT: Final = prefill_layout("L-T8", COCO, GQA, *MME, NOCAPS, *POPE, SEED, VIZWIZ)
SHARES: Final = (0.55, 0.4, 0.3, 0.2)
LOW: Final = 0.4
PRESERVED: Final = 0.98


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Averages over benchmarks by share, ours and the printed ones of LightKV."""
    return averages(frame, LAYOUT)


def draw(frame: pd.DataFrame) -> Figure:
    """Averages against the share: ours, and the paper's LightKV."""
    data = plotted(frame)
    shares = sorted(set(data["share"]) - {1.0})
    figure, axes = canvas(1, 2, height=3.0, sharey=True)
    for place, whose in zip(axes[0], (HERE, "paper"), strict=True):
        cells = data[((data["whose"] == HERE) == (whose == HERE)) & (data["compared"] != VANILLA)]
        lines(place, cells, shares, "share", "average")
        level(place, 1.0)
        place.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
        place.set_xlabel("token-layers processed, %")
        place.set_title(whose if whose == HERE else "paper: Qwen2.5-VL-7B (Table 8)")
    axes[0, 0].set_ylabel("mean score, % of the full cache's")
    legend_below(figure, axes[0, 0], 6)
    return figure


def _shares(frame: pd.DataFrame) -> list[float]:
    return sorted(set(frame["share"]) - {1.0}, reverse=True)


def _own(frame: pd.DataFrame, method: str, share: float) -> pd.DataFrame:
    return pick(frame, compared=method, share=share)


def judge_preserved(frame: pd.DataFrame) -> Verdict:
    """Does LightKV keep 98 % of the full cache's score at every share?"""
    whole = pick(frame, compared=VANILLA)
    return all_of(
        keeps(
            _own(frame, "lightkv", share),
            whole,
            PRESERVED,
            f"LightKV at {100 * share:g} %, share of the full cache's score",
        )
        for share in _shares(frame)
        if len(_own(frame, "lightkv", share))
    )


def judge_leads_low(frame: pd.DataFrame) -> Verdict:
    """Does LightKV beat the other methods at the lower shares?"""
    others = [m for m in dict.fromkeys(frame["compared"]) if m not in ("lightkv", VANILLA)]
    low = [share for share in _shares(frame) if share <= LOW]
    if not others or not any(len(_own(frame, "lightkv", share)) for share in low):
        return untestable("methods were not compared below 55 %")
    return worst_of(
        better(
            _own(frame, "lightkv", share),
            _own(frame, name, share),
            f"LightKV over {LOOKS[name].label} at {100 * share:g} %, all tasks",
            whole=pick(frame, compared=VANILLA),
        )
        for share in low
        for name in others
        if len(_own(frame, "lightkv", share)) and len(_own(frame, name, share))
    )


def _table(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    whole: pd.DataFrame = table(frame, layout, efficiency)
    return whole


_DEPTH: Final = (
    "Three halving stages can't go below 30 % in a model of 8 layers, so 20 % is left out there. "
    "Stages lie where they come nearest to a share; the paper gives none for 40 % and less. "
)

RATES: Final = Artefact(
    id="L-T8",
    title="LightKV at 55, 40, 30 and 20 %",
    source="LightKV, Table 8",
    shows="Qwen2.5-VL-7B with LightKV at four rates.",
    study="prefill_methods",
    options={"methods": ("lightkv",), "shares": SHARES},
    planned=planned(128),
    seconds=15,
    plotted=plotted,
    draw=draw,
    table=lambda frame: _table(frame, LAYOUT),
    claims=(
        Claim(
            "LightKV stays near the full cache down to 20 %.",
            "LightKV, Section 5 on Table 8",
            judge_preserved,
            "share of the full cache's score over all tasks at least 0.98 at each rate",
        ),
    ),
    caption="Mean over benchmarks of the score as a share of the full cache's, against the share "
    "of vision token-layers that are processed; left ours, right the paper's print.",
    explanation=_DEPTH
    + "The paper's averages include COCO, whose score rises as tokens go, in some rows only.",
    alt="Line chart of the mean score against the share of token-layers processed.",
    paper="L-T8",
    benchmarks=LAYOUT.benchmarks,
)

CURVES: Final = Artefact(
    id="L-F4",
    title="Accuracy against the compression rate",
    source="LightKV, Figure 4",
    shows="Qwen2.5-VL-7B: mean score against the compression rate, LightKV and baselines.",
    study="prefill_methods",
    options={"methods": ("fastv", "tome", "pitome", "tofu", "lightkv"), "shares": SHARES},
    planned=planned(128),
    seconds=55,
    plotted=plotted,
    draw=draw,
    table=lambda frame: _table(frame, LAYOUT),
    claims=(
        Claim(
            "The fewer tokens are left, the more LightKV leads.",
            "LightKV, Section 5 on Figure 4",
            judge_leads_low,
            "paired difference over all tasks above 0 against each method at 40 % and less",
            main=True,
        ),
    ),
    caption="Mean over tasks of the score as a share of the full cache's, against the share of "
    "vision token-layers that are processed; right the paper's Table 8, the figure prints none.",
    explanation=_DEPTH
    + "FastV and HiRED drop tokens, ToMe, PiToMe and ToFu merge over the whole image, LightKV "
    "within windows and by what the prompt attends.",
    alt="Line charts of the mean score against the share of token-layers processed, five methods.",
    paper="L-T8",
    benchmarks=LAYOUT.benchmarks,
)
