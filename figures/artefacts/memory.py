"""L-F1: where memory goes during prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.shared import pick
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, GREY, ORANGE, SKY, canvas
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS: Final = {
    "weights": ("weights", GREY),
    "rest": ("activations (estimate)", ORANGE),
    "text KV": ("text KV", SKY),
    "vision KV": ("vision KV", BLUE),
}
HALVED: Final = (0.45, 0.55)
"""What counts as halved: what is left, as a share."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """GiB of every part, one row a bar segment."""
    return frame[["model", "method", "part", "gib"]]


def draw(frame: pd.DataFrame) -> Figure:
    """Stacked bars: everything, and the KV cache alone."""
    figure, axes = canvas(1, 2, height=3.6)
    _bars(axes[0, 0], frame, list(PARTS), "All memory in prefill")
    _bars(axes[0, 1], frame, ["text KV", "vision KV"], "KV cache alone")
    axes[0, 1].set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _bars(axes: Axes, frame: pd.DataFrame, parts: list[str], title: str) -> None:
    bars = frame[["title", "method"]].drop_duplicates()
    names = list(dict.fromkeys(bars["title"]))
    heights = [0.0] * len(bars)
    places = [
        names.index(title) + (-0.2 if method == "vanilla" else 0.2)
        for title, method in bars.itertuples(index=False)
    ]
    for part in parts:
        label, color = PARTS[part]
        values = [
            float(pick(frame, title=title, method=method, part=part)["gib"].sum())
            for title, method in bars.itertuples(index=False)
        ]
        axes.bar(places, values, 0.36, bottom=heights, color=color, label=label, edgecolor="white")
        heights = [below + value for below, value in zip(heights, values, strict=True)]
    for place, height, method in zip(places, heights, bars["method"], strict=True):
        letter = "V" if method == "vanilla" else "L"
        axes.annotate(
            f"{letter}\n{height:.2f}" if height < 10 else f"{letter}\n{height:.1f}",
            (place, height),
            ha="center",
            va="bottom",
            size=8,
        )
    axes.set_xticks(
        range(len(names)),
        [name.replace("-1.5-", "-1.5\n").replace("NeXT-", "NeXT\n") for name in names],
    )
    axes.set_ylim(0, 1.22 * max(heights))
    axes.set_title(title)
    axes.set_xlabel("V vanilla, L LightKV")
    axes.set_ylabel("GiB")
    axes.grid(False, axis="x")


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Parts in GiB per model and method, beside the paper's KV memory (Table 1)."""
    import pandas as pd

    from figures import paper
    from figures.artefacts.shared import printed

    numbers = paper.numbers("L-T1")
    rows = []
    for (model, title, method), parts in frame.groupby(["model", "title", "method"], sort=False):
        row: dict[tuple[str, str], Any] = {("model", ""): title, ("method", ""): method}
        for part in PARTS:
            row["here (computed), GiB", part] = float(parts[parts["part"] == part]["gib"].sum())
        row["here (computed), GiB", "all KV of prefill"] = sum(
            row["here (computed), GiB", part] for part in ("text KV", "vision KV")
        )
        row["paper (Table 1), GB", "KV with 100 generated tokens"] = printed(
            numbers, model=model, method=method, metric="kv_cache_memory"
        )
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _left(frame: pd.DataFrame, model: str, part: str) -> float:
    full = pick(frame, model=model, part=part, method="vanilla")["gib"].sum()
    return float(pick(frame, model=model, part=part, method="lightkv")["gib"].sum() / full)


def judge_halved(frame: pd.DataFrame) -> Verdict:
    """Is the vision tokens' KV halved, on every model?"""
    low, high = HALVED
    left = {model: _left(frame, model, "vision KV") for model in dict.fromkeys(frame["model"])}
    return all_of(
        verdict(low <= share <= high, f"{model}: {share:.3f} of the vision KV is left")
        for model, share in left.items()
    )


def judge_dominates(frame: pd.DataFrame) -> Verdict:
    """Do vision tokens hold most of the full cache, on every model?"""
    full = pick(frame, method="vanilla")
    verdicts = []
    for model, parts in full.groupby("model", sort=False):
        vision = float(pick(parts, part="vision KV")["gib"].sum())
        every = vision + float(pick(parts, part="text KV")["gib"].sum())
        verdicts.append(
            verdict(vision > every / 2, f"{model}: {vision / every:.3f} of the KV cache")
        )
    return all_of(verdicts)


PREFILL_MEMORY: Final = Artefact(
    id="L-F1",
    title="Where memory goes during prefill",
    source="LightKV, Figure 1",
    shows="Memory of LLaVA-1.5 and LLaVA-NeXT in prefill, split into weights, text KV, vision KV "
    "and the rest, with the full cache and with LightKV.",
    study="memory_breakdown",
    seconds=2,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Vision tokens hold most of the KV cache.",
            "LightKV, Section 1 and Figure 1",
            judge_dominates,
            "more than half of the full cache on every model",
        ),
        Claim(
            "LightKV halves the KV cache of the vision tokens.",
            "LightKV, abstract",
            judge_halved,
            "45 to 55 % of it is left on every model",
            main=True,
        ),
    ),
    caption="Memory in prefill at 2 bytes a number, 48 prompt tokens. Left: everything; right: the "
    "KV cache alone. The number over a bar is its total.",
    explanation="The paper prints no numbers for this figure. Ours are computed from the models' "
    "dimensions and the published schedules, nothing is run; the activations are an estimate of "
    "what lives at once in the widest layer. The layer after which a stage merges still caches "
    "every token, which is why somewhat more than 55 % of the vision KV is left.",
    alt="Stacked bars for four LLaVA models, vanilla beside LightKV. Weights dominate; LightKV "
    "shortens only the vision KV part.",
)
