"""T-F6: accuracy by the length of the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.asking.store import FACT
from analysis.scoring.intervals import mean
from figures.artefacts.evictor_tables import NEARLY
from figures.artefacts.methods import VANILLA
from figures.artefacts.shared import legend_below, pick, planned, points, several_words
from figures.compound import worst_of
from figures.contract import Artefact, Claim
from figures.models import NATIVE
from figures.style import BLACK, Look, canvas, nth
from figures.tables import percent
from figures.verdicts import Verdict, keeps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BINS: Final = 4
TOKENS: Final = f"{FACT}tokens"


def binned(frame: pd.DataFrame) -> pd.DataFrame:
    """Questions with answers of several words, with ``words`` of the question, its tokens where
    the task says how many, and ``bin``: at most four of about equal size."""
    import pandas as pd

    frame = several_words(frame)
    words = frame["question"].str.count(r"\S+")
    if TOKENS in frame.columns:
        words = frame[TOKENS].fillna(words).astype(int)
    questions = frame.assign(words=words).drop_duplicates("question")["words"]
    edges = sorted(set(questions.quantile([n / BINS for n in range(BINS + 1)])))
    if len(edges) < 2:
        return frame.assign(words=words, bin=f"{words.iloc[0]}")
    cut = pd.cut(words, edges, include_lowest=True)
    spans = words.groupby(cut, observed=True).agg(["min", "max"])
    names = {
        span: f"{low}" if low == high else f"{low}–{high}"
        for span, low, high in spans.itertuples(name=None)
    }
    return frame.assign(words=words, bin=cut.map(names).astype(str))


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score over tasks with its interval, and questions, per length and budget."""
    import pandas as pd

    rows = []
    for (name, retention), answers in binned(frame).groupby(["bin", "retention"], sort=False):
        score = mean(answers)
        cell = {"score": score.value, "low": score.low, "high": score.high, "n": score.n}
        rows.append({"bin": name, "retention": retention, **cell})
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> Figure:
    """Score against length, a line per budget."""
    data = plotted(frame)
    order = list(dict.fromkeys(binned(frame).sort_values("words")["bin"]))
    figure, axes = canvas(1, 1, height=2.8)
    place = axes[0, 0]
    for number, retention in enumerate(sorted(set(data["retention"]), reverse=True)):
        cells = data[data["retention"] == retention].set_index("bin").reindex(order)
        look = Look("full cache", BLACK, "o", ":") if retention == 1 else nth(number)
        label = look.label or f"TGV-KV at {100 * retention:g} %"
        x = [n + 0.06 * number for n in range(len(order))]
        points(place, x, cells, look, label=label)
    place.set_xticks(range(len(order)), order)
    place.set_xlabel(
        "tokens of the question" if TOKENS in frame.columns else "words of the question"
    )
    place.set_ylim(bottom=0)
    place.set_ylabel("score, %")
    legend_below(figure, place, 4)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Score and questions per length and budget. The paper prints no numbers."""
    import pandas as pd

    data = plotted(frame)
    order = list(dict.fromkeys(binned(frame).sort_values("words")["bin"]))
    rows = []
    for name in order:
        row: dict[str, object] = {"length": name}
        for _, cell in data[data["bin"] == name].sort_values("retention").iloc[::-1].iterrows():
            title = VANILLA if cell["retention"] == 1 else f"{100 * cell['retention']:g} %"
            row |= {"questions": f"{cell['n']:g}"}
            row[title] = percent(cell["score"], cell["low"], cell["high"])
        rows.append(row)
    return pd.DataFrame(rows)


def judge_length(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep 95 % of the full cache's score in every bin, at every budget?"""
    data = binned(frame)
    return worst_of(
        keeps(
            pick(data, bin=name, retention=retention),
            pick(data, bin=name, retention=1.0),
            NEARLY,
            f"questions of {name}, TGV-KV at {100 * retention:g} %",
        )
        for name in dict.fromkeys(data.sort_values("words")["bin"])
        for retention in sorted(set(data["retention"]) - {1.0}, reverse=True)
    )


BY_LENGTH: Final = Artefact(
    id="T-F6",
    title="Accuracy by the length of the question",
    source="TGV-KV, Figure 6",
    shows="ScienceQA accuracy in bins of question length, full cache and 30, 20 and 10 %.",
    study="evictors_compared",
    options={
        "tasks": ("embedded-qwen:legend",),
        "methods": ("tgvkv",),
        "retentions": (0.3, 0.2, 0.1),
        "samples": 48,
    },
    planned=planned(2048),
    models=(NATIVE,),
    seconds=30,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "TGV-KV holds for short and long questions alike.",
            "TGV-KV, Figure 6",
            judge_length,
            "score minus 0.95 of the full cache's above 0 in every bin at each budget, questions "
            "with answers of several words",
        ),
    ),
    caption="Score with 95 % interval against the length of the question, full cache and three "
    "budgets. The paper prints its figure without numbers.",
    explanation="A passage of the question says what code words stand for, and the question is "
    "asked in these words, so that text and picture are needed. Passages are of 2 to 35 "
    "definitions, evenly by logarithm; the bins hold about as many questions each. Only questions "
    "with answers of several words count, about three tenths, since the one word of other answers "
    "comes before anything is evicted. Where a passage has more tokens than a layer may keep, some "
    "of it goes.",
    alt="Line chart of the score against the length of the question, a line per budget.",
)
