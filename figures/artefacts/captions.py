"""T-T7: captions under eviction, by every metric of caption tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.methods import LOOKS, PRINTED, VANILLA
from figures.artefacts.score_tables import HERE, lines, title
from figures.artefacts.shared import legend_below, pick, planned
from figures.contract import Artefact, Claim
from figures.style import canvas
from figures.tables import MISSING
from figures.verdicts import Verdict, better, undecided, untestable, verdict, worst_of

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
DRAWN: Final = ("bleu4", "rouge_l", "cider")


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Every metric per method and budget, over all captions of a cell."""
    import pandas as pd

    from analysis.scoring.captions import caption_scores

    rows = []
    for (method, retention), answers in frame.groupby(["compared", "retention"], sort=False):
        scores = caption_scores(answers["answer"].tolist(), answers["reference"].tolist())
        rows.append({"compared": method, "retention": retention, "n": len(answers), **scores})
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> Figure:
    """A panel per metric of ours, then three of the paper's for each model."""
    data = plotted(frame)
    budgets = sorted(set(data["retention"]) - {1.0})
    metrics = [name for name in METRICS if name in data.columns]
    numbers = _numbers()
    printed_panels = [
        (model, "coco-caption", metric)
        for model in dict.fromkeys(numbers["model"])
        for metric in DRAWN
    ]
    figure, axes = canvas(4, 3, height=1.8)
    places = axes.ravel()
    for place, name in zip(places[:6], metrics, strict=True):
        lines(place, data.assign(score=data[name] / 100), budgets, "retention", "score")
        place.set_title(f"here: {METRICS[name]}")
    for place, (model, benchmark, metric) in zip(places[6:], printed_panels, strict=False):
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
    rows = [
        _row(f"{HERE} ({', '.join(sorted(frame['model'].unique()))})", "caption", one, one)
        for one in data.to_dict("records")
    ]
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
        **{k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()},
    }


def judge_every_metric(frame: pd.DataFrame) -> Verdict:
    """Is TGV-KV first by every metric at every budget?"""
    others = [m for m in dict.fromkeys(frame["compared"]) if m not in ("tgvkv", VANILLA)]
    if "tgvkv" not in set(frame["compared"]) or not others:
        return untestable("no methods were compared")
    budgets = sorted(set(frame["retention"]) - {1.0}, reverse=True)
    per_caption = [
        better(
            _by(metric, pick(frame, compared="tgvkv", retention=budget)),
            _by(metric, pick(frame, compared=other, retention=budget)),
            f"TGV-KV over {LOOKS[other].label} at {100 * budget:g} %, {METRICS[metric]}",
            whole=_by(metric, pick(frame, compared=VANILLA)),
        )
        for metric in ("rouge_l", "cider")
        for budget in budgets
        for other in others
    ]
    return worst_of([*per_caption, *_bleu(plotted(frame), budgets)])


def _by(metric: str, answers: pd.DataFrame) -> pd.DataFrame:
    """The same questions, each scored by a metric that is a mean over captions."""
    from analysis.scoring.metrics import cider, coco_rouge_l, each

    scores = {"rouge_l": each(coco_rouge_l), "cider": cider}[metric]
    return answers.assign(score=scores(answers["answer"].tolist(), answers["reference"].tolist()))


def _bleu(data: pd.DataFrame, budgets: list[float]) -> Iterator[Verdict]:
    """Whether BLEU, which is one number a corpus and has no interval here, says the same."""
    cells = data[data["compared"] != VANILLA]
    for budget in budgets:
        scores = pick(cells, retention=budget).set_index("compared")
        for name in [name for name in METRICS if name.startswith("bleu") and name in scores]:
            best = str(scores[name].idxmax())
            text = f"{METRICS[name]} at {100 * budget:g} %: {LOOKS[best].label} leads"
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
            "BLEU of the corpus, which has no interval here, must rank the same",
        ),
    ),
    caption="Our captions by six metrics, then the paper's BLEU-4, ROUGE-L and CIDEr on "
    "COCO for both models. Dotted: full cache.",
    explanation="The answers are those of T-T3. BLEU is that of the whole corpus; METEOR needs "
    "Java or a word net and is in print only. Our captions are templates, so BLEU-4 and CIDEr are "
    "high with the full cache and fall steeply with the first wrong word.",
    alt="Line charts of caption metrics against retained share for six evictors.",
    paper="T-T7",
)
