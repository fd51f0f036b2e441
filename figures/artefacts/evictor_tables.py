"""T-T2, T-T3 and T-T8: evictors by budget, on reading, on captions, and on vision entries alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.columns import Column
from figures.artefacts.layout import Layout
from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.published import CHARTQA, DOCVQA, TEXTVQA, VIZWIZ, coco, textcaps
from figures.artefacts.score_tables import HERE, lines, table, title
from figures.artefacts.shared import legend_below, over_print, pick, planned
from figures.compound import all_of, worst_of
from figures.contract import Artefact, Claim
from figures.verdicts import Verdict, better, keeps, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NEARLY: Final = 0.95
KEYS: Final = ["benchmark", "metric"]
GENTLE: Final = 0.9


def layout(paper: str, *columns: Column) -> Layout:
    """A table of TGV-KV's with its benchmarks."""
    return Layout(
        paper,
        columns,
        "retention",
        lambda retention: f"{100 * retention:g} %",
        percent=True,
    )


FOUR: Final = (
    Column("chartqa", "relaxed_accuracy", "ChartQA", "embedded/list", CHARTQA),
    Column("docvqa", "anls", "DocVQA", "embedded/read", DOCVQA),
    Column("vizwiz", "accuracy", "VizWiz", published=VIZWIZ),
    Column("textvqa", "accuracy", "TextVQA", published=TEXTVQA),
)
READING: Final = layout("T-T2", *FOUR)
CAPTIONS: Final = layout(
    "T-T3",
    Column("coco-caption", "rouge_l", "COCO, ROUGE-L", "embedded/caption", coco("ROUGE_L")),
    Column("textcaps", "cider", "TextCaps, CIDEr", published=textcaps("CIDEr")),
)
VISION_ONLY: Final = layout("T-T8", *FOUR)


def held(model: str, method: str, at: Any, rows: pd.DataFrame) -> dict[Any, Any]:
    """What ours held of the cache."""
    if model != HERE:
        return {}
    return {("KV held", "%"): f"{100 * rows['kv_share'].mean():.1f}"}


def draw(frame: pd.DataFrame, layout: Layout) -> Figure:
    """A panel per task of ours, then of the paper one per model, and per metric if they differ."""
    data, numbers = layout.plotted(frame), layout.numbers()
    budgets = sorted(set(data["retention"]) - {1.0})
    here, models = layout.asked(frame).panels(data), list(dict.fromkeys(numbers["model"]))
    metrics = _panels(layout)
    panels = [(model, name, columns) for model in models for name, columns in metrics.items()]
    width = 2 if len(panels) in (2, 4) else 3
    figure, above, below = over_print(len(here), len(panels), width=width, height=2.0)
    for place, (name, cells) in zip(above, here, strict=True):
        lines(place, cells, budgets, "retention", "score")
        place.set_title(f"here: {name}")
    for place, (model, name, columns) in zip(below, panels, strict=True):
        _printed_panel(place, pick(numbers, model=model), layout, columns, budgets)
        place.set_title(f"{title(model)}\n{name}", fontsize=8)
    for place in (*above, *below):
        place.set_xticks(range(len(budgets)), [f"{100 * r:g}" for r in budgets])
        place.set_ylim(bottom=0)
        place.set_xlabel("retained, %")
    for place in (*above[::width], *below[::width]):
        place.set_ylabel("score, %")
    legend_below(figure, above[0], 4)
    return figure


def _panels(layout: Layout) -> dict[str, tuple[Column, ...]]:
    """Benchmarks that share a panel: all of a table in percent of questions, each metric else."""
    if layout.paper == CAPTIONS.paper:
        return {column.title: (column,) for column in layout.columns}
    return {f"mean of {len(layout.columns)} benchmarks": layout.columns}


def _printed_panel(
    axes: Any,
    numbers: pd.DataFrame,
    layout: Layout,
    columns: tuple[Column, ...],
    budgets: list[float],
) -> None:
    """The paper's lines of one model, means over benchmarks."""
    import pandas as pd

    wanted = pd.DataFrame([(c.benchmark, c.metric) for c in columns], columns=KEYS)
    cells = numbers.merge(wanted, on=KEYS)
    ours = {"tgv-kv": "tgvkv-vision-only" if layout is VISION_ONLY else "tgvkv"}
    share = cells["setting"].str.extract(r"=([\d.]+)%", expand=False).astype(float) / 100
    known = cells.assign(compared=cells["method"].replace(ours), retention=share)
    means = known.groupby(["compared", "retention"])["value"].mean().reset_index(name="score")
    means["score"] /= 100
    lines(axes, means, budgets, "retention", "score")


def _budgets(frame: pd.DataFrame) -> list[float]:
    return sorted(set(frame["retention"]) - {1.0}, reverse=True)


def _leads(frame: pd.DataFrame, method: str, budgets: list[float]) -> Verdict:
    others = [m for m in dict.fromkeys(frame["compared"]) if m not in (method, VANILLA)]
    if method not in set(frame["compared"]) or not others:
        return untestable("no methods were compared")
    return worst_of(
        better(
            pick(frame, compared=method, retention=budget),
            pick(frame, compared=other, retention=budget),
            f"TGV-KV over {LOOKS[other].label} at {100 * budget:g} %",
            whole=pick(frame, compared=VANILLA),
        )
        for budget in budgets
        for other in others
    )


def judge_leads(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV beat every method at every budget?"""
    return _leads(frame, "tgvkv", _budgets(frame))


def judge_leads_tight(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV beat every method at the tightest budget?"""
    return _leads(frame, "tgvkv", _budgets(frame)[-1:])


def judge_half(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep 95 % of the full cache's score at half of the cache?"""
    budget = _budgets(frame)[0]
    return keeps(
        pick(frame, compared="tgvkv", retention=budget),
        pick(frame, compared=VANILLA),
        NEARLY,
        f"TGV-KV at {100 * budget:g} %, share of the full cache's score",
    )


def judge_captions(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep 90 % of the full cache's score on captions at every budget?"""
    return all_of(
        keeps(
            pick(frame, compared="tgvkv", retention=budget),
            pick(frame, compared=VANILLA),
            GENTLE,
            f"TGV-KV at {100 * budget:g} %, share of the full cache's ROUGE-L",
        )
        for budget in _budgets(frame)
    )


def judge_aircache(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV on vision entries beat AirCache at every ratio?"""
    return _leads(frame, "tgvkv-vision-only", _budgets(frame))


MAIN_RESULTS: Final = Artefact(
    id="T-T2",
    title="Evictors on tasks that need the picture",
    source="TGV-KV, Table 2",
    shows="Five models with the full cache, five evictors and TGV-KV at 50, 20, 10 and 5 %, on "
    "ChartQA, DocVQA, VizWiz and TextVQA.",
    study="evictors_compared",
    planned=planned(128),
    seconds=50,
    plotted=READING.plotted,
    draw=lambda frame: draw(frame, READING),
    table=lambda frame: table(frame, READING, held),
    claims=(
        Claim(
            "TGV-KV beats every evictor it is compared with at 5 %.",
            "TGV-KV, Table 2",
            judge_leads_tight,
            "paired difference over all tasks above 0 against each of them",
            main=True,
        ),
        Claim(
            "TGV-KV beats every evictor it is compared with at every budget.",
            "TGV-KV, Table 2",
            judge_leads,
            "paired difference over all tasks above 0 against each of them, at each budget",
        ),
        Claim(
            "TGV-KV at half of the cache is nearly as good as the full cache.",
            "TGV-KV, Table 2",
            judge_half,
            "share of the full cache's score over all tasks at least 0.95",
        ),
    ),
    caption="Score against the share of the cache retained; first our tasks with 95 % intervals, "
    "then the paper's print for each model. Dotted: full cache.",
    explanation="Our tasks stand for reading several things in a picture: read (four digits, for "
    "DocVQA) and list (colours, for ChartQA). Compare the order of the lines within a panel. The "
    "paper itself has one exception: VizWiz on LLaVA-1.5-7B at 5 % is StreamingLLM's. At 5 % our "
    "short prompts hold about 14 entries a layer where the paper's hold 32.",
    alt="Line charts of score against retained share for six evictors, ours first, then five "
    "models of the paper.",
    paper="T-T2",
    benchmarks=READING.benchmarks,
)

CAPTIONING: Final = Artefact(
    id="T-T3",
    title="Evictors on captions",
    source="TGV-KV, Table 3",
    shows="Two models with five evictors and TGV-KV at 50, 20 and 10 %, on TextCaps and COCO.",
    study="evictors_compared",
    options={"tasks": ("embedded/caption",), "retentions": (0.5, 0.2, 0.1)},
    planned=planned(128),
    seconds=60,
    plotted=CAPTIONS.plotted,
    draw=lambda frame: draw(frame, CAPTIONS),
    table=lambda frame: table(frame, CAPTIONS, held),
    claims=(
        Claim(
            "TGV-KV beats every evictor on captions at every budget.",
            "TGV-KV, Table 3",
            judge_leads,
            "paired difference of ROUGE-L above 0 against each of them, at each budget",
        ),
        Claim(
            "TGV-KV keeps captions close to the full cache's.",
            "TGV-KV, Table 3",
            judge_captions,
            "share of the full cache's ROUGE-L at least 0.9 at each budget",
            main=True,
        ),
    ),
    caption="ROUGE-L of captions against the share of the cache retained, then the paper's print. "
    "Dotted: full cache.",
    explanation="Our captions list every object of a picture with place, colour and shape, about "
    "forty words; they stand for COCO and TextCaps. T-T7 scores the same answers by every caption "
    "metric.",
    alt="Line charts of caption scores against retained share for six evictors, ours and two "
    "models of the paper.",
    paper="T-T3",
    benchmarks=CAPTIONS.benchmarks,
)

VISION_ENTRIES: Final = Artefact(
    id="T-T8",
    title="Eviction of vision entries alone, against AirCache",
    source="TGV-KV, Table 8",
    shows="Two models with all text kept and a share of the vision entries, TGV-KV against "
    "AirCache.",
    study="evictors_compared",
    options={"methods": ("aircache", "tgvkv-vision-only")},
    planned=planned(128),
    seconds=20,
    plotted=VISION_ONLY.plotted,
    draw=lambda frame: draw(frame, VISION_ONLY),
    table=lambda frame: table(frame, VISION_ONLY, held),
    claims=(
        Claim(
            "With all text kept, TGV-KV beats AirCache at every ratio.",
            "TGV-KV, Table 8",
            judge_aircache,
            "paired difference over all tasks above 0 at each ratio",
            main=True,
        ),
    ),
    caption="Score against the share of the vision entries retained, all text kept; ours, then "
    "the paper's print. Dotted: full cache.",
    explanation="The ratio counts vision entries only, so both methods hold the same number of "
    "entries, and what differs is which patches and how many a layer gets.",
    alt="Line charts of score against the share of vision entries for TGV-KV and AirCache.",
    paper="T-T8",
    benchmarks=VISION_ONLY.benchmarks,
)
