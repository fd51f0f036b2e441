"""T-F4 and T-T9: Video-TT, and our questions about videos, by how they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.scoring.intervals import difference, mean
from analysis.studies.video import LED, PARAPHRASED, PRIMARY
from figures.artefacts.evictor_tables import NEARLY
from figures.artefacts.methods import LOOKS, OURS, VANILLA
from figures.artefacts.score_tables import HERE, lines
from figures.artefacts.shared import legend_below, pick, planned
from figures.compound import worst_of
from figures.contract import Artefact, Claim
from figures.models import NATIVE
from figures.style import canvas
from figures.tables import MISSING, percent
from figures.verdicts import Verdict, better, keeps, not_beaten, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

QUESTIONS: Final = {
    PRIMARY: "primary",
    LED["right"]: "correctly led",
    LED["wrong"]: "wrongly led",
    PARAPHRASED: "paraphrased",
}
PAPER: Final = "paper (Qwen3-VL-4B)"
TIGHTEST: Final = 0.1
PANELS: Final = (PRIMARY, PARAPHRASED, LED["wrong"])
"""Those of the paper's Figure 4, as its text and its levels of the full cache have it."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Our accuracy, a mean over tasks, with its interval, and the printed one.

    Returns:
        Columns whose ("here" or "paper"), asked, compared, retention, n, score, low, high.
    """
    import pandas as pd

    from figures import paper

    numbers = paper.numbers("T-T9")
    share = numbers["setting"].str.extract(r"=([\d.]+)%", expand=False).astype(float) / 100
    theirs = pd.DataFrame(
        {
            "whose": "paper",
            "asked": numbers["metric"],
            "compared": numbers["method"].replace(OURS),
            "retention": share,
            "score": numbers["value"] / 100,
        }
    )
    if frame.empty:
        return theirs
    rows = []
    for (asked, method, retention), answers in frame.groupby(
        ["asked", "compared", "retention"], sort=False
    ):
        where = {"whose": HERE, "asked": asked, "compared": method, "retention": retention}
        score = mean(answers)
        cell = {"n": score.n, "score": score.value, "low": score.low, "high": score.high}
        rows.append({**where, **cell})
    return pd.concat([pd.DataFrame(rows), theirs], ignore_index=True)


def draw(frame: pd.DataFrame, asked: tuple[str, ...]) -> Figure:
    """A panel per way of asking: ours above, the paper's below; the paper's alone without ours."""
    data = plotted(frame)
    whose = list(dict.fromkeys(data["whose"]))
    budgets = sorted(set(data["retention"]) - {1.0})
    figure, axes = canvas(len(whose), len(asked), height=2.4, sharex=True, sharey="row")
    for row, name in zip(axes, whose, strict=True):
        for place, way in zip(row, asked, strict=True):
            lines(place, pick(data, whose=name, asked=way), budgets, "retention", "score")
            place.set_xticks(range(len(budgets)), [f"{100 * budget:g}" for budget in budgets])
            place.set_title(f"{name}: {QUESTIONS[way]}", fontsize=8.5)
        row[0].set_ylim(bottom=0)
        row[0].set_ylabel("accuracy, %")
    for place in axes[-1]:
        place.set_xlabel("retained, %")
    legend_below(figure, axes[-1, 0], 4)
    return figure


def table(frame: pd.DataFrame, asked: tuple[str, ...]) -> pd.DataFrame:
    """One row a method and budget, ours and the paper's a column per way of asking."""
    import pandas as pd

    data = plotted(frame)
    ours, printed = pick(data, whose=HERE), pick(data, whose="paper")
    rows = []
    # The full cache has one row; it is printed again at every budget.
    cells = dict.fromkeys(
        (str(method), 1.0 if method == VANILLA else float(retention))
        for method, retention in zip(data["compared"], data["retention"], strict=True)
    )
    for method, retention in cells:
        row: dict[tuple[str, str], object] = {
            ("method", ""): LOOKS[method].label if method in LOOKS else method,
            ("retained", ""): MISSING if method == VANILLA else f"{100 * retention:g} %",
        }
        at = {} if method == VANILLA else {"retention": retention}
        for whose, part in ((HERE, ours), (PAPER, printed)):
            for way in asked if len(part) else ():
                cell = pick(part, asked=way, compared=method, **at)
                row[whose, f"{QUESTIONS[way]}, %"] = _cell(cell)
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _cell(cell: pd.DataFrame) -> str:
    return percent(*cell.iloc[0].reindex(["score", "low", "high"])) if len(cell) else MISSING


def _budgets(frame: pd.DataFrame) -> list[float]:
    return sorted(set(frame["retention"]) - {1.0}, reverse=True)


def _others(frame: pd.DataFrame) -> list[str]:
    return [m for m in dict.fromkeys(frame["compared"]) if m not in ("tgvkv", VANILLA)]


def judge_front(frame: pd.DataFrame) -> Verdict:
    """Does no method score surely more than TGV-KV with as many entries?"""
    if "tgvkv" not in set(frame["compared"]) or not _others(frame):
        return untestable("no methods were compared")
    return worst_of(
        not_beaten(
            difference(
                pick(frame, compared=other, retention=budget),
                pick(frame, compared="tgvkv", retention=budget),
            ),
            f"{LOOKS[other].label} over TGV-KV at {100 * budget:g} %",
        )
        for budget in _budgets(frame)
        for other in _others(frame)
    )


def judge_near(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep 95 % of the full cache's accuracy, however a question is asked?"""
    return worst_of(
        keeps(
            pick(frame, compared="tgvkv", retention=budget, asked=way),
            pick(frame, compared=VANILLA, asked=way),
            NEARLY,
            f"{QUESTIONS[way]}, TGV-KV at {100 * budget:g} %",
        )
        for way in QUESTIONS
        for budget in _budgets(frame)
        if len(pick(frame, compared="tgvkv", retention=budget, asked=way))
    )


def judge_tightest(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV beat every other method at a tenth of the cache?"""
    return worst_of(
        better(
            pick(frame, compared="tgvkv", retention=TIGHTEST),
            pick(frame, compared=other, retention=TIGHTEST),
            f"TGV-KV over {LOOKS[other].label} at {100 * TIGHTEST:g} %",
            whole=pick(frame, compared=VANILLA),
        )
        for other in _others(frame)
        if len(pick(frame, compared=other, retention=TIGHTEST))
    )


def _artefact(
    artefact_id: str,
    title: str,
    source: str,
    shows: str,
    asked: tuple[str, ...],
    claims: tuple[Claim, ...],
) -> Artefact:
    return Artefact(
        id=artefact_id,
        title=title,
        source=source,
        shows=shows,
        study="evictors_on_video",
        planned=planned(512),
        models=(NATIVE,),
        plotted=plotted,
        draw=lambda frame: draw(frame, asked),
        table=lambda frame: table(frame, asked),
        claims=claims,
        caption="Accuracy against the share of the cache retained, by how a question is asked; "
        "above ours with 95 % intervals, below the paper's Video-TT on Qwen3-VL-4B. Dotted: full "
        "cache.",
        explanation="Ours are made-up videos in which things appear in an order, move or change; "
        "half of the questions come after a hint, which is wrong as often as right, and about two "
        "thirds of those without a hint are worded in another than the first way. They are scored "
        "by exact match; the paper's answers are open, and an LLM judges them. Its text says that "
        "the primary score stays over 95 % of the full cache's; at 10 % it is exactly 95.0 %. A "
        "model that takes no videos has no panels of ours.",
        alt="Line charts of accuracy on video questions against the retained share, one panel a "
        "way of asking, ours above the paper's.",
        paper="T-T9",
        seconds=35,
    )


PARETO: Final = _artefact(
    "T-F4",
    "Video questions: accuracy against retention",
    "TGV-KV, Figure 4",
    "Video-TT on Qwen3-VL-4B: accuracy against the share retained, all methods.",
    PANELS,
    (
        Claim(
            "TGV-KV is on the Pareto front of accuracy and cache on video.",
            "TGV-KV, Figure 4",
            judge_front,
            "at each budget no other method leads by more than 5 points (upper bound) and none "
            "leads surely, over all ways of asking",
        ),
    ),
)

VIDEO: Final = _artefact(
    "T-T9",
    "Video questions that lead, mislead and paraphrase",
    "TGV-KV, Table 9",
    "Video-TT on Qwen3-VL-4B: primary, correctly led, wrongly led and paraphrased questions.",
    tuple(QUESTIONS),
    (
        Claim(
            "TGV-KV stays near the full cache when questions lead, mislead or paraphrase.",
            "TGV-KV, Table 9",
            judge_near,
            "score minus 0.95 of the full cache's above 0 at each budget, each way of asking",
        ),
        Claim(
            "At a tenth of the cache TGV-KV beats every method it is compared with on video.",
            "TGV-KV, Table 9",
            judge_tightest,
            "paired difference above 0 at 10 % against each of them, over all ways of asking",
        ),
    ),
)
