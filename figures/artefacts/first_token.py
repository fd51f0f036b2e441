"""L-T4 and L-T10: time to the first token and of 100 tokens on decoders of real dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.rounds import in_every_round, in_words, ratios, spread
from figures.artefacts.score_tables import title
from figures.artefacts.shared import pick
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, PALETTE, canvas
from figures.tables import MISSING
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FASTER: Final = 0.8
"""Share of the full cache's time that a fall by a quarter to a third stays under."""

NEAR: Final = 0.05
MEASURES: Final = {"ttft_ms": "first token", "latency_s": "100 tokens"}
PRINTED: Final = {"ttft_ms": "ttft_mean", "latency_s": "gen_latency_mean"}
UNITS: Final = {"ttft_ms": "ms", "latency_s": "s"}


def _numbers(paper_id: str) -> pd.DataFrame:
    """The paper's means: model, compared, measure and value."""
    from figures import paper

    numbers = paper.numbers(paper_id)
    measure = {metric: name for name, metric in PRINTED.items()}
    numbers = numbers.assign(measure=numbers["metric"].map(measure), compared=numbers["method"])
    columns = ["model", "compared", "measure", "value", "printed"]
    return numbers.dropna(subset=["measure"])[columns]


def plotted(frame: pd.DataFrame, paper_id: str) -> pd.DataFrame:
    """Medians here and means in print, with their share of the full cache's."""
    import pandas as pd

    measures = list(dict.fromkeys(_numbers(paper_id)["measure"]))
    parts = [_numbers(paper_id).assign(whose="paper")]
    for measure in measures if len(frame) else []:
        medians = frame.groupby(["model", "compared"], sort=False)[measure].median()
        ours = medians.reset_index(name="value").assign(measure=measure, whose="here")
        parts.append(ours[ours["model"].isin(parts[0]["model"])])
    data = pd.concat(parts, ignore_index=True)
    full = pick(data, compared=VANILLA).set_index(["whose", "model", "measure"])["value"]
    keys = zip(data["whose"], data["model"], data["measure"], strict=True)
    data["share"] = data["value"] / [full.get(key, float("nan")) for key in keys]
    return data[["whose", "model", "compared", "measure", "value", "share"]]


def draw(frame: pd.DataFrame, paper_id: str) -> Figure:
    """Times as a share of the full cache's; ours, if any were measured, above the paper's."""
    data = plotted(frame, paper_id)
    rows = [whose for whose in ("here", "paper") if whose in set(data["whose"])]
    measures = list(dict.fromkeys(data["measure"]))
    methods = [m for m in LOOKS if m in set(data["compared"]) and m != VANILLA]
    height = 1.2 + 0.3 * len(methods)
    figure, axes = canvas(len(rows), len(measures), height=height, sharey=True, sharex=True)
    for line, whose in zip(axes, rows, strict=True):
        for place, measure in zip(line, measures, strict=True):
            _dots(place, pick(data, whose=whose, measure=measure), methods)
            where = f" ({frame['machine'].iloc[0]})" if whose == "here" else ""
            place.set_title(f"{whose}: {MEASURES[measure]}{where}")
    for place in axes[-1]:
        place.set_xlabel("% of the full cache's time")
    handles, labels = axes[-1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _dots(axes: Axes, data: pd.DataFrame, methods: list[str]) -> None:
    models = list(dict.fromkeys(data["model"]))
    for number, model in enumerate(models):
        measured = data[(data["model"] == model) & (data["compared"] != VANILLA)]
        shift = 0.15 * ((len(models) - 1) / 2 - number)
        heights = [len(methods) - 1 - methods.index(name) + shift for name in measured["compared"]]
        color = PALETTE[number % len(PALETTE)]
        axes.plot(
            100 * measured["share"], heights, "osD^"[number % 4], color=color, label=title(model)
        )
    axes.set_yticks(range(len(methods)), [LOOKS[name].label for name in reversed(methods)])
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.axvline(100, color=BLACK, linestyle=":", linewidth=1)


def table(frame: pd.DataFrame, paper_id: str) -> pd.DataFrame:
    """Median and range here, mean and standard deviation in print."""
    import pandas as pd

    from figures import paper

    numbers = paper.numbers(paper_id)
    measures = [name for name, metric in PRINTED.items() if metric in set(numbers["metric"])]
    rows = []
    for (model, method), cells in numbers.groupby(["model", "method"], sort=False):
        digits = cells.set_index("metric")["printed"]
        ours = pick(frame, model=model, compared=method)
        row: dict[tuple[str, str], object] = {
            ("model", ""): title(str(model)),
            ("method", ""): LOOKS[str(method)].label,
        }
        for name in measures:
            heading = f"{MEASURES[name]}, {UNITS[name]}"
            deviation = digits[PRINTED[name].replace("_mean", "_std")]
            row[heading, "paper"] = f"{digits[PRINTED[name]]} ± {deviation}"
            row[heading, "here, median (range)"] = spread(ours[name]) if len(ours) else MISSING
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _ratios(frame: pd.DataFrame, other: str, measure: str) -> dict[str, pd.Series[float]]:
    """Per model LightKV's times over those of another method."""
    by_model = frame.groupby("model", sort=False)
    every = {str(m): ratios(runs, measure, "compared", "lightkv", other) for m, runs in by_model}
    return {model: ratio for model, ratio in every.items() if len(ratio)}


def _below(frame: pd.DataFrame, most: float, measure: str, models: str = "") -> Verdict:
    """Whether LightKV takes at most a share of the full cache's time, in every round."""
    return all_of(
        in_every_round(ratio <= most, f"{title(model)}, {MEASURES[measure]}: {in_words(ratio)}")
        for model, ratio in _ratios(frame, VANILLA, measure).items()
        if model.endswith(models)
    )


def judge_quarter(frame: pd.DataFrame) -> Verdict:
    """Does the first token of the 13B models come a fifth earlier at least?"""
    return _below(frame, FASTER, "ttft_ms", "13b")


def judge_earlier(frame: pd.DataFrame) -> Verdict:
    """Does LightKV answer earlier than the full cache, first token and all 100?"""
    return all_of(_below(frame, 1.0, measure) for measure in MEASURES)


def judge_like_tome(frame: pd.DataFrame) -> Verdict:
    """Does LightKV take as long as ToMe, whose graph it shares?"""
    return all_of(
        verdict(
            abs(float(ratio.median()) - 1) <= NEAR,
            f"{title(model)}, {MEASURES[measure]}: {ratio.median():.3f} of ToMe's",
        )
        for measure in MEASURES
        for model, ratio in _ratios(frame, "tome", measure).items()
    )


_EXPLAINED: Final = (
    "Ours are whole requests to decoders of the same dimensions at full depth with one layer's "
    "random weights in all of them (docs/performance.md); what is computed has no meaning, how "
    "long it takes does. Compare ratios: the paper measured one A100. On the H200 of the record "
    "that ships a prefill of 576 tokens waits for its kernels to be launched, not for "
    "arithmetic: fewer tokens save little, and whatever a method launches comes on top."
)

TIME_TO_FIRST_TOKEN: Final = Artefact(
    id="L-T4",
    title="Time to the first token",
    source="LightKV, Table 4",
    shows="LLaVA-1.5-13B and LLaVA-NeXT-13B, the full cache and LightKV.",
    study="request_times",
    options={"models": ("llava-1.5-13b", "llava-next-13b"), "methods": (VANILLA, "lightkv")},
    seconds=2,
    plotted=lambda frame: plotted(frame, "L-T4"),
    draw=lambda frame: draw(frame, "L-T4"),
    table=lambda frame: table(frame, "L-T4"),
    claims=(
        Claim(
            "LightKV's first token comes about a quarter to a third earlier.",
            "LightKV, Table 4",
            judge_quarter,
            "at most 0.8 of the full cache's time in every round, on each 13B model",
        ),
    ),
    caption="Time to the first token as a share of the full cache's.",
    explanation=_EXPLAINED,
    alt="Dots per model: time to the first token under LightKV as a share of the full cache's.",
    paper="L-T4",
)

LATENCY: Final = Artefact(
    id="L-T10",
    title="First token and 100 tokens",
    source="LightKV, Table 10",
    shows="Four LLaVA models, the full cache and five methods in prefill: TTFT, and latency of 100 "
    "generated tokens.",
    study="request_times",
    seconds=2,
    plotted=lambda frame: plotted(frame, "L-T10"),
    draw=lambda frame: draw(frame, "L-T10"),
    table=lambda frame: table(frame, "L-T10"),
    claims=(
        Claim(
            "LightKV answers earlier than the full cache, the first token and all 100.",
            "LightKV, Table 10",
            judge_earlier,
            "below the full cache's time in every round, on every model that was measured",
        ),
        Claim(
            "LightKV takes as long as ToMe.",
            "LightKV, Table 10",
            judge_like_tome,
            "median ratio within 5 %, first token and 100 tokens, every model that was measured",
        ),
    ),
    caption="Times as a share of the full cache's; left to the first token, right of 100 tokens.",
    explanation=_EXPLAINED,
    alt="Dots per method and model: times as a share of the full cache's.",
    paper="L-T10",
)
