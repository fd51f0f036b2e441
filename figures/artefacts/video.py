"""T-F4 and T-T9: Video-TT, in print only until there is a trained model here that takes video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.methods import LOOKS, OURS
from figures.artefacts.score_tables import lines
from figures.artefacts.shared import legend_below, pick
from figures.contract import Artefact, Claim
from figures.style import canvas
from figures.verdicts import Verdict, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

QUESTIONS: Final = {
    "primary": "primary",
    "correctly-led": "correctly led",
    "wrongly-led": "wrongly led",
    "paraphrase": "paraphrased",
}
MISSING: Final = "a trained model that takes video, with led and paraphrased questions about it"


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """The printed scores with budgets as numbers."""
    share = frame["setting"].str.extract(r"=([\d.]+)%", expand=False).astype(float) / 100
    columns = {"metric": frame["metric"], "compared": frame["method"].replace(OURS)}
    return frame.assign(**columns, retention=share, score=frame["value"] / 100)[
        [*columns, "retention", "score"]
    ]


def draw(frame: pd.DataFrame, metrics: tuple[str, ...]) -> Figure:
    """The paper's lines, a panel per kind of question."""
    data = plotted(frame)
    budgets = sorted(set(data["retention"]))
    figure, axes = canvas(1, len(metrics), height=3.0, sharey=True)
    for place, metric in zip(axes[0], metrics, strict=True):
        cells = pick(data, metric=metric)
        lines(place, cells, budgets, "retention", "score")
        place.set_xticks(range(len(budgets)), [f"{100 * budget:g}" for budget in budgets])
        place.set_xlabel("retained, %")
        place.set_title(f"paper: {QUESTIONS[metric]}", fontsize=8.5)
    axes[0, 0].set_ylabel("accuracy, %")
    legend_below(figure, axes[0, 0], 4)
    return figure


def table(frame: pd.DataFrame, metrics: tuple[str, ...]) -> pd.DataFrame:
    """The paper's numbers, one row a method and budget."""
    import pandas as pd

    rows = []
    for (setting, method), cells in frame.groupby(["setting", "method"], sort=False):
        digits = cells.set_index("metric")["printed"]
        rows.append(
            {
                "method": LOOKS[OURS.get(str(method), str(method))].label,
                "retained": str(setting).removeprefix("retention="),
                **{f"paper: {QUESTIONS[metric]}": digits[metric] for metric in metrics},
            }
        )
    return pd.DataFrame(rows)


def judge_video(frame: pd.DataFrame) -> Verdict:
    """Needs a model that takes video."""
    return untestable(f"needs {MISSING}")


def _artefact(
    artefact_id: str, title: str, source: str, shows: str, metrics: tuple[str, ...], claim: Claim
) -> Artefact:
    return Artefact(
        id=artefact_id,
        title=title,
        source=source,
        shows=shows,
        study="",
        plotted=plotted,
        draw=lambda frame: draw(frame, metrics),
        table=lambda frame: table(frame, metrics),
        claims=(claim,),
        caption="The paper's accuracy on Video-TT against the share of the cache retained, on "
        "Qwen3-VL-4B. Dotted: full cache. Nothing of ours.",
        explanation="Answers are open and an LLM judges them in the paper. Its text says that the "
        "primary score stays over 95 % of the full cache's; at 10 % it is exactly 95.0 %.",
        alt="Line charts of accuracy on video questions against the retained share, in print.",
        paper="T-T9",
        seconds=2,
        missing=MISSING,
    )


PARETO: Final = _artefact(
    "T-F4",
    "Video questions: accuracy against retention",
    "TGV-KV, Figure 4",
    "Video-TT on Qwen3-VL-4B: accuracy against the share retained, all methods.",
    ("primary",),
    Claim(
        "TGV-KV is on the Pareto front of accuracy and cache on video.",
        "TGV-KV, Figure 4",
        judge_video,
        "paired difference above 0 against each method at each budget",
    ),
)

VIDEO: Final = _artefact(
    "T-T9",
    "Video questions that lead, mislead and paraphrase",
    "TGV-KV, Table 9",
    "Video-TT on Qwen3-VL-4B: primary, correctly led, wrongly led and paraphrased questions.",
    tuple(QUESTIONS),
    Claim(
        "TGV-KV stays near the full cache when questions lead, mislead or paraphrase.",
        "TGV-KV, Table 9",
        judge_video,
        "share of the full cache's accuracy at least 0.95 at each budget, each kind of question",
    ),
)
