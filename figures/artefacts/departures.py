"""X-7: what each departure of the released code does to answers and to what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analysis.asking.rows import VANILLA
from analysis.scoring.intervals import QUESTION, difference
from analysis.studies.departures import PAPER, WHOLE
from figures.artefacts.shared import pick, planned
from figures.contract import Artefact, Claim
from figures.style import BLACK, BLUE, RED, canvas
from figures.tables import percent
from figures.verdicts import Verdict, alike, better, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

METHODS: Final = {"lightkv": ("LightKV", BLUE), "tgvkv": ("TGV-KV", RED)}
WORDS: Final = {
    ("lightkv", "guidance"): ("weights: prompt attention", "random (LLaVA path)"),
    ("lightkv", "normalise"): ("attention sums to 1 over keys", "over queries"),
    ("lightkv", "partition"): ("windows on the image's grid", "re-read as a new square"),
    ("lightkv", "positions"): ("positions stay", "renumbered in prefill"),
    ("lightkv", "first layer"): ("first stage layer causal", "without a mask"),
    ("lightkv", "counting"): ("pairs counted exactly", "in float32"),
    ("lightkv", "small images"): ("small images refused", "left alone"),
    ("lightkv", WHOLE): ("the paper", "all of these"),
    ("tgvkv", "redistribute"): ("unusable budget handed on", "lost"),
    ("tgvkv", "rounding"): ("largest remainders", "each layer by itself"),
    ("tgvkv", "text scope"): ("question ranks text", "every query does"),
    ("tgvkv", "system text"): ("system text stays", "may be evicted"),
    ("tgvkv", "decoding"): ("new entries are appended", "one leaves per step"),
    ("tgvkv", "README's ratio"): ("share that stays", "taken for the share to drop"),
    ("tgvkv", WHOLE): ("the paper", "all of these, but the ratio"),
}
"""What the paper says and what the code does."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Per departure: difference of scores with interval, equal answers, overlap, cache held."""
    import pandas as pd

    rows = []
    for (method, departure), departed in frame.groupby(["compared", "departure"], sort=False):
        paper = pick(frame, compared=method, departure=PAPER)
        if departure in ("", PAPER) or paper.empty:
            continue
        lead = difference(departed, paper)
        rows.append(
            {
                "compared": method,
                "departure": departure,
                "n": lead.n,
                "difference": lead.value,
                "low": lead.low,
                "high": lead.high,
                "equal": _equal(departed, paper),
                "overlap": departed["overlap"].mean(),
                "kv_share": departed["kv_share"].mean(),
                "kv_share_paper": paper["kv_share"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _equal(departed: pd.DataFrame, paper: pd.DataFrame) -> float:
    """Share of questions with the same answer, word for word."""
    both = departed.merge(paper, on=list(QUESTION), suffixes=("", "_paper"))
    return float((both["answer"] == both["answer_paper"]).mean())


def draw(frame: pd.DataFrame) -> Figure:
    """Three panels over the same rows: difference, equal answers, overlap."""
    data = plotted(frame)
    figure, axes = canvas(1, 3, height=0.9 + 0.3 * len(data), sharey=True)
    lead, equal, overlap = axes[0]
    heights = list(range(len(data)))[::-1]
    for height, row in zip(heights, data.to_dict("records"), strict=True):
        name, color = METHODS[str(row["compared"])]
        lead.plot([100 * row["low"], 100 * row["high"]], [height] * 2, color=color, lw=1.2)
        lead.plot(100 * row["difference"], height, "o", color=color, label=name)
        for place, column in ((equal, "equal"), (overlap, "overlap")):
            place.barh(height, 100 * row[column], 0.6, color=color)
    lead.set_yticks(heights, data["departure"].replace({WHOLE: "all of them"}))
    lead.axvline(0, color=BLACK, linestyle=":", linewidth=1)
    lead.set_title("score, code's choice\nminus the paper's")
    lead.set_xlabel("points")
    equal.set_title("equal answers")
    overlap.set_title("shared entries\nor merges")
    for place in (equal, overlap):
        place.set_xlim(0, 103)
        place.set_xlabel("%")
        place.grid(False, axis="y")
    handles, labels = lead.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=2)
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's choice, the code's, and what it does."""
    import pandas as pd

    rows = []
    for row in plotted(frame).to_dict("records"):
        key = str(row["compared"]), str(row["departure"])
        paper, code = WORDS[key]
        lead = [100 * row[name] for name in ("difference", "low", "high")]
        rows.append(
            {
                "method": METHODS[key[0]][0],
                "paper": paper,
                "released code": code,
                "difference, points": f"{lead[0]:+.1f} [{lead[1]:+.1f}, {lead[2]:+.1f}]",
                "equal answers, %": percent(row["equal"]),
                "shared entries or merges, %": percent(row["overlap"]),
                "KV held, paper, %": percent(row["kv_share_paper"]),
                "KV held, code, %": percent(row["kv_share"]),
            }
        )
    return pd.DataFrame(rows)


def _pair(frame: pd.DataFrame, method: str, departure: str) -> Any:
    return (
        pick(frame, compared=method, departure=departure),
        pick(frame, compared=method, departure=PAPER),
    )


def _alike(frame: pd.DataFrame, method: str) -> Verdict:
    code, paper = _pair(frame, method, WHOLE)
    if code.empty or paper.empty:
        return untestable("the paper's variant and the code's were not both run")
    whole = pick(frame, compared=VANILLA)
    return alike(code, paper, f"{METHODS[method][0]}, released code against the paper", whole=whole)


def judge_lightkv(frame: pd.DataFrame) -> Verdict:
    """Does the released LightKV score as the paper's?"""
    return _alike(frame, "lightkv")


def judge_tgvkv(frame: pd.DataFrame) -> Verdict:
    """Does the released TGV-KV score as the paper's?"""
    return _alike(frame, "tgvkv")


def judge_guidance(frame: pd.DataFrame) -> Verdict:
    """Does prompt attention as the weight beat random weights?"""
    random, prompt = _pair(frame, "lightkv", "guidance")
    if random.empty or prompt.empty:
        return untestable("random and prompt guidance were not both run")
    whole = pick(frame, compared=VANILLA)
    return better(prompt, random, "prompt attention over random weights", whole=whole)


DEPARTURES: Final = Artefact(
    id="X-7",
    title="Where released code departs from its paper",
    source="our own, across both papers",
    shows="Not in the papers: each choice of the released code alone, and all of them, against the "
    "paper's variant.",
    study="released_choices",
    planned=planned(256),
    seconds=60,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "LightKV's released code scores as the method in the paper does.",
            "our own, on the released code",
            judge_lightkv,
            "difference within 5 points over the tasks that tell settings apart, interval included",
        ),
        Claim(
            "TGV-KV's released code scores as the method in the paper does.",
            "our own, on the released code",
            judge_tgvkv,
            "difference within 5 points over the tasks that tell settings apart, interval included",
        ),
        Claim(
            "Weighing merges by prompt attention beats random weights.",
            "LightKV, Section 3; its released LLaVA path draws random weights",
            judge_guidance,
            "paired difference above 0 over the tasks that tell settings apart",
        ),
    ),
    caption="Per choice of the released code: score minus that of the paper's variant with 95 % "
    "interval, share of answers that are equal word for word, and how much of what is held is "
    "shared: entries under TGV-KV, pairs of vision token and merged token under LightKV.",
    explanation="One choice is changed at a time, on the paper's schedule at this model's depth "
    "and at 20 % retention. Two choices show only where they apply: float32 counts at ratios that "
    "it can't hold, and small images left alone at fewer than eight tokens a window. With half "
    "precision the code's text scores tie; that is not reproduced. docs/methods.md has the "
    "options.",
    alt="Three panels over fifteen choices: difference of scores, equal answers, overlap.",
)
