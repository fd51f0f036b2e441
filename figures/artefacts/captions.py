"""T-T7: captions under eviction, by every metric of caption tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from analysis.scoring.captions import caption_scores
from analysis.scoring.leads import apart_by_score, has_scores
from analysis.scoring.metrics import cider, coco_rouge_l, each
from figures.artefacts.methods import LOOKS, PRINTED, VANILLA
from figures.artefacts.published import coco, textcaps
from figures.artefacts.score_tables import HERE, lines, title
from figures.artefacts.shared import legend_below, pick, planned, records, summary
from figures.compound import worst_of
from figures.contract import Artefact, Claim, by_printed_score
from figures.style import canvas
from figures.tables import MISSING
from figures.verdicts import Verdict, better, undecided, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

METRICS: Final = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
}
BENCHMARKS: Final = {"textcaps": "TextCaps", "coco-caption": "COCO"}
OURS: Final = "caption"
DRAWN: Final = ("bleu4", "rouge_l", "cider")

_HARNESS: Final = {"rouge_l": "ROUGE_L", "cider": "CIDEr"} | {
    f"bleu{order}": f"Bleu_{order}" for order in (1, 2, 3, 4)
}
"""Names of scores there; METEOR, a Java program's, is not computed here."""

_PUBLISHED: Final = {
    benchmark: {metric: of(name) for metric, name in _HARNESS.items()}
    for benchmark, of in (("textcaps", textcaps), ("coco-caption", coco))
}
PUBLISHED: Final = tuple(one for scores in _PUBLISHED.values() for one in scores.values())


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Every metric per method and budget, over all captions of a cell.

    Returns:
        Columns captions (what they are of), compared, retention, metric, n, score, and low and high
        where there is an interval: on the benchmarks.
    """
    import pandas as pd

    scored = by_printed_score(frame, PUBLISHED)
    if has_scores(scored):
        data = summary(scored, ("task", "compared", "retention"))
        names = {
            one.score: (BENCHMARKS[benchmark], metric)
            for benchmark, scores in _PUBLISHED.items()
            for metric, one in scores.items()
        }
        captions, metrics = zip(*(names[name] for name in data["metric"]), strict=True)
        return data.assign(captions=captions, metric=metrics)
    rows = []
    for (method, retention), answers in frame.groupby(["compared", "retention"], sort=False):
        what = {"captions": OURS, "compared": method, "retention": retention, "n": len(answers)}
        scores = caption_scores(answers["answer"].tolist(), answers["reference"].tolist())
        rows += [{**what, "metric": name, "score": score} for name, score in scores.items()]
    return pd.DataFrame(rows).assign(low=float("nan"), high=float("nan"))


def draw(frame: pd.DataFrame) -> Figure:
    """A panel per metric of ours, or of each benchmark, then three of the paper's per model."""
    data = plotted(frame)
    budgets = sorted(set(data["retention"]) - {1.0})
    here = list(data.groupby(["captions", "metric"], sort=False))
    numbers = _numbers()
    printed_panels = [
        (model, "coco-caption", metric)
        for model in dict.fromkeys(numbers["model"])
        for metric in DRAWN
    ]
    figure, axes = canvas((len(here) + len(printed_panels)) // 3, 3, height=1.8)
    places = axes.ravel()
    for place, ((captions, name), cells) in zip(places[: len(here)], here, strict=True):
        shares = cells.assign(**{one: cells[one] / 100 for one in ("score", "low", "high")})
        lines(place, shares, budgets, "retention", "score")
        what = "" if captions == OURS else f"{captions}, "
        place.set_title(f"here: {what}{METRICS[str(name)]}")
    for place, panel in zip(places[len(here) :], printed_panels, strict=True):
        model, benchmark, metric = panel
        cells = pick(numbers, model=model, benchmark=benchmark, metric=metric)
        lines(place, cells.assign(score=cells["value"] / 100), budgets, "retention", "score")
        place.set_title(f"{title(model)}: COCO, {METRICS[metric]}", fontsize=8)
    for place in places:
        place.set_xticks(range(len(budgets)), [f"{100 * r:g}" for r in budgets])
        place.set_ylim(bottom=0)
    for place in axes[-1]:
        place.set_xlabel("retained, %")
    legend_below(figure, axes[0, 0], 4)
    return figure


def _numbers() -> pd.DataFrame:
    """The printed numbers with our names of methods and budgets as numbers."""
    from figures import paper

    numbers = paper.numbers("T-T7")
    ours = {theirs: name for name, theirs in PRINTED.items() if name in ("tgvkv",)}
    share = numbers["setting"].str.extract(r"retention=([\d.]+)%", expand=False).astype(float) / 100
    return numbers.assign(compared=numbers["method"].replace(ours), retention=share)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every metric, ours above the paper's two benchmarks."""
    import pandas as pd

    data, numbers = plotted(frame), _numbers()
    here = f"{HERE} ({', '.join(sorted(frame['model'].unique()))})"
    rows = []
    for (captions, method, retention), cells in data.groupby(
        ["captions", "compared", "retention"], sort=False
    ):
        scores = {one["metric"]: _score(one) for one in records(cells)}
        what = {"compared": method, "retention": retention}
        rows.append(_row(here, str(captions), what, scores))
    for (model, benchmark, retention, method), cells in numbers.groupby(
        ["model", "benchmark", "retention", "compared"], sort=False
    ):
        if method == VANILLA and retention != numbers["retention"].max():
            continue  # printed again at every budget
        digits = dict(zip(cells["metric"], cells["printed"], strict=True))
        what = {"compared": method, "retention": retention}
        rows.append(_row(f"paper ({title(str(model))})", BENCHMARKS[str(benchmark)], what, digits))
    return pd.DataFrame(rows)


def _row(
    whose: str, captions: str, what: Mapping[Any, Any], scores: Mapping[Any, Any]
) -> dict[str, object]:
    method = str(what["compared"])
    full = method == VANILLA
    values = {label: scores.get(name, MISSING) for name, label in METRICS.items()}
    return {
        "model": whose,
        "captions": captions,
        "method": LOOKS[method].label,
        "retained, %": "–" if full else f"{100 * what['retention']:g}",
        **values,
    }


def _score(cell: Mapping[str, Any]) -> str:
    interval = f" [{cell['low']:.3f}, {cell['high']:.3f}]" if cell["low"] == cell["low"] else ""
    return f"{cell['score']:.3f}{interval}"


def judge_every_metric(frame: pd.DataFrame) -> Verdict:
    """Is TGV-KV first by every metric at every budget?"""
    others = [m for m in dict.fromkeys(frame["compared"]) if m not in ("tgvkv", VANILLA)]
    if "tgvkv" not in set(frame["compared"]) or not others:
        return untestable("no methods were compared")
    budgets = sorted(set(frame["retention"]) - {1.0}, reverse=True)
    per_caption = [
        better(
            pick(rows, compared="tgvkv", retention=budget),
            pick(rows, compared=other, retention=budget),
            f"TGV-KV over {LOOKS[other].label} at {100 * budget:g} %, {name}",
            whole=pick(rows, compared=VANILLA),
        )
        for name, rows in _by_metric(frame)
        for budget in budgets
        for other in others
    ]
    corpus = () if has_scores(frame) else _bleu(plotted(frame), budgets)
    return worst_of([*per_caption, *corpus])


def _by_metric(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The questions once for each metric that has an interval: on benchmarks all of them."""
    import pandas as pd

    if has_scores(frame):
        for (_, name), rows in apart_by_score(frame).items():
            yield name, rows
        return
    for metric, scores in (("rouge_l", each(coco_rouge_l)), ("cider", cider)):
        cells = [
            cell.assign(score=scores(cell["answer"].tolist(), cell["reference"].tolist()))
            for _, cell in frame.groupby(["compared", "retention"], sort=False)
        ]
        yield METRICS[metric], pd.concat(cells)


def _bleu(data: pd.DataFrame, budgets: list[float]) -> Iterator[Verdict]:
    """Whether BLEU, which is one number a corpus and has no interval here, says the same."""
    cells = data[(data["compared"] != VANILLA) & data["metric"].str.startswith("bleu")]
    for budget in budgets:
        for name, scores in pick(cells, retention=budget).groupby("metric", sort=False):
            best = str(scores.set_index("compared")["score"].idxmax())
            text = f"{METRICS[str(name)]} at {100 * budget:g} %: {LOOKS[best].label} leads"
            yield verdict(True, text) if best == "tgvkv" else undecided(text)


EVERY_METRIC: Final = Artefact(
    id="T-T7",
    title="Captions by every metric",
    source="TGV-KV, Table 7",
    shows="The captions of Table 3 scored by BLEU-1 to BLEU-4, METEOR, ROUGE-L and CIDEr.",
    study="evictors_compared",
    options={"tasks": ("embedded/caption",), "retentions": (0.5, 0.2, 0.1)},
    planned=planned(128),
    seconds=5,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "TGV-KV leads by every caption metric at every budget.",
            "TGV-KV, Table 7",
            judge_every_metric,
            "paired difference of ROUGE-L and of CIDEr above 0 against each method at each budget; "
            "BLEU of our captions, which has no interval, must rank the same. On the benchmarks "
            "the difference of every metric but METEOR, on both",
        ),
    ),
    caption="Our captions by six metrics, then the paper's BLEU-4, ROUGE-L and CIDEr on "
    "COCO for both models. Dotted: full cache.",
    explanation="The answers are those of T-T3. BLEU is that of the whole corpus; METEOR needs "
    "Java or a word net and is in print only. Our captions are templates, so BLEU-4 and CIDEr are "
    "high with the full cache and fall steeply with the first wrong word.",
    alt="Line charts of caption metrics against retained share for six evictors.",
    paper="T-T7",
    benchmarks=PUBLISHED,
)
