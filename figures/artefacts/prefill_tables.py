"""L-T1, L-T2, L-T3 and L-T7: methods at LightKV's share of the token-layers, model by model."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from analysis import studies
from figures.artefacts import published
from figures.artefacts.columns import Column
from figures.artefacts.layout import Layout
from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.prefill_claims import (
    cost,
    judge_afterwards,
    judge_all,
    judge_cost,
    judge_encoder_free,
    judge_encoder_free_pruner,
    judge_mergers,
    judge_preserved,
    judge_pruners,
)
from figures.artefacts.score_tables import HERE, averages, dots, table
from figures.artefacts.shared import planned, printed
from figures.contract import Artefact, Claim
from figures.models import EMBEDDED
from figures.models import ENCODER_FREE as FUYU
from figures.style import canvas

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


CAPTION: Final = "embedded/caption"

TIMED: Final = (VANILLA, "lightkv")
"""Methods that were timed in the tables' setting: LightKV's stages at the model's depth."""

TIMED_AT: Final = 0.55

COCO = Column("coco-caption", "score", "COCO", CAPTION, published.coco("CIDEr"))
NOCAPS = Column("nocaps", "score", "NoCaps", published=published.NOCAPS)
GQA = Column("gqa", "score", "GQA", "embedded/where", published.GQA)
MME = (
    Column("mme", "cognition", "MME-C", published=published.MME_COGNITION, points=True),
    Column("mme", "perception", "MME-P", published=published.MME_PERCEPTION, points=True),
)
POPE = (
    Column("pope", "accuracy", "POPE-Acc", "embedded/exist", published.POPE_ACCURACY),
    Column("pope", "f1", "POPE-F1", published=published.POPE_F1),
)
SEED = Column("seedbench", "score", "SEED", published=published.SEED)
SCIENCE = Column("scienceqa", "score", "ScienceQA", published=published.SCIENCE)
VIZWIZ = Column("vizwiz", "score", "VizWiz", "embedded/read", published.VIZWIZ)
WHERE = Column("", "", "–", "embedded/where")


def layout(paper: str, *columns: Column) -> Layout:
    """A table of LightKV's with its benchmarks."""
    return Layout(
        paper,
        columns,
        "share",
        lambda share: f"{100 * share:g} %",
    )


def efficiency(model: str, method: str, at: Any, rows: pd.DataFrame) -> dict[Any, Any]:
    """FLOPs, KV memory, TTFT: printed, counted and timed of the paper's models; shares of ours."""
    if model == HERE:
        held = rows[["kv_share", "token_share"]].mean()
        return {
            ("KV held", "%"): f"{100 * held['kv_share']:.0f}",
            ("token-layers", "%"): f"{100 * held['token_share']:.0f}",
        }
    cells = {}
    flops, memory = cost(model, method, at)
    for metric, heading, value in (
        ("flops", "FLOPs, T", flops),
        ("kv_cache_memory", "KV, GiB", memory),
    ):
        cells[heading, "printed"] = printed(rows, metric=metric)
        cells[heading, "computed"] = value
    cells["TTFT, s", "printed"] = printed(rows, metric="ttft")
    if method in TIMED and at in (1.0, TIMED_AT):
        cells["TTFT, s", "measured"] = first_token_seconds(model).get(method, float("nan"))
    return cells


@functools.cache
def first_token_seconds(model: str) -> dict[str, float]:
    """A model's median time to the first token by method, of those that the record has."""
    times = studies.request_times(models=(model,), methods=TIMED)
    return {str(m): ms / 1000 for m, ms in times.groupby("compared")["ttft_ms"].median().items()}


def plotted(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Averages over benchmarks, ours and printed."""
    return averages(frame, layout)


def draw(frame: pd.DataFrame, layout: Layout) -> Figure:
    """Averages as dots: here, then the paper's models."""
    data = averages(frame, layout)
    methods = [m for m in LOOKS if m in set(data["compared"]) and m != VANILLA]
    shares = sorted(set(data["share"]) - {1.0}, reverse=True)
    height = 1.0 + 0.3 * len(methods)
    figure, axes = canvas(len(shares), 2, height=height, sharey=True)
    for (ours, theirs), share in zip(axes, shares, strict=True):
        cells = data[(data["share"] == share) & (data["compared"] != VANILLA)]
        dots(ours, cells, methods, [HERE])
        dots(theirs, cells, methods, [w for w in dict.fromkeys(cells["whose"]) if w != HERE])
        ours.set_title(f"here, {100 * share:g} %")
        theirs.set_title(f"paper, {100 * share:g} %")
        theirs.legend(loc="best")
    return figure


def _artefact(
    artefact_id: str,
    title: str,
    shows: str,
    layout: Layout,
    claims: tuple[Claim, ...],
    *,
    methods: tuple[str, ...],
    shares: tuple[float, ...],
    seconds: float,
    explanation: str,
    models: tuple[str, ...] = (EMBEDDED,),
) -> Artefact:
    return Artefact(
        id=artefact_id,
        title=title,
        source=f"LightKV, Table {artefact_id.removeprefix('L-T')}",
        shows=shows,
        study="prefill_methods",
        seconds=seconds,
        plotted=lambda frame: plotted(frame, layout),
        draw=lambda frame: draw(frame, layout),
        table=lambda frame: table(frame, layout, efficiency),
        claims=claims,
        caption="Mean over benchmarks of the score as a share of the full cache's; left ours with "
        "95 % intervals, right the paper's print.",
        explanation=explanation,
        alt="Dots per method: mean score as a share of the full cache's, ours beside the paper's.",
        paper=artefact_id,
        options={"methods": methods, "shares": shares},
        planned=planned(128),
        models=models,
        benchmarks=layout.benchmarks,
    )


def _claim(sentence: str, number: int, judge: Any, rule: str, *, main: bool = False) -> Claim:
    return Claim(sentence, f"LightKV, Section 5 on Table {number}", judge, rule, main)


_KEEPS_RULE = "share of the full cache's score over all tasks at least 0.98, at each rate"
_LEADS_RULE = (
    "paired difference above 0 over the tasks that tell settings apart, against each of them, at "
    "each rate"
)
_STANDS_IN = (
    "A column's second heading says which of our questions stand for the benchmark: exist for "
    "POPE, where for GQA, read for VizWiz, caption for COCO; with --benchmarks it is the benchmark "
    "itself (COCO's captions of 2017 by CIDEr, the pictures of SEED and of ScienceQA: the paper "
    "doesn't say). "
)

FOUR_MODELS: Final = _artefact(
    "L-T1",
    "Ten methods on four LLaVA models",
    "LLaVA-1.5 and LLaVA-NeXT, 7B and 13B, with ten methods at 55 %: FLOPs, KV memory, TTFT and "
    "seven benchmarks.",
    layout("L-T1", COCO, *MME, NOCAPS, *POPE, SEED, VIZWIZ, WHERE),
    (
        _claim(
            "LightKV at 55 % keeps at least 98 % of the full cache's score on average.",
            1,
            judge_preserved,
            _KEEPS_RULE,
            main=True,
        ),
        _claim("LightKV beats ToMe, PiToMe and ToFu.", 1, judge_mergers, _LEADS_RULE, main=True),
        _claim("LightKV beats HiRED and FastV.", 1, judge_pruners, _LEADS_RULE),
        _claim(
            "Baselines that act after prefill collapse on open-ended generation.",
            1,
            judge_afterwards,
            "at most half of the full cache's score on captions, each of them",
            main=True,
        ),
        _claim(
            "FLOPs and KV memory are those of Table 1.",
            1,
            judge_cost,
            "the full cache's and LightKV's printed numbers are within 5.5 % of what is counted "
            "from the models' dimensions",
        ),
    ),
    methods=(
        *("elasticcache", "random", "random-vision", "tome-cache"),
        *("tofu", "pitome", "tome", "lightkv", "fastv", "hired"),
    ),
    shares=(0.55,),
    seconds=75,
    explanation=_STANDS_IN
    + "FLOPs and memory are counted from the dimensions of the paper's models for a prompt of 48 "
    "and 100 generated tokens; ToMe (P), PiToMe and ToFu act after LightKV's layers, FastV after a "
    "sixteenth of the layers, HiRED before the first. Methods after prefill hold 55 % of the "
    "cache here. TTFT was measured on decoders of the same dimensions on an H200 "
    "(docs/performance.md): compare ratios.",
)

INTERNVL: Final = _artefact(
    "L-T2",
    "InternVL2 at 60 and 55 %",
    "InternVL2-8B with LightKV and four methods in prefill at two rates.",
    layout("L-T2", COCO, GQA, *MME, *POPE, SCIENCE, VIZWIZ),
    (
        _claim(
            "LightKV keeps at least 98 % of the full cache's score at 60 and at 55 %.",
            2,
            judge_preserved,
            _KEEPS_RULE,
        ),
        _claim("LightKV beats FastV, ToFu, PiToMe and ToMe.", 2, judge_all, _LEADS_RULE),
    ),
    methods=("fastv", "tofu", "pitome", "tome", "lightkv"),
    shares=(0.6, 0.55),
    seconds=35,
    explanation=_STANDS_IN
    + "The model asked here is a LLaVA; with --model an InternVL answers instead. The paper gives "
    "no schedule for 60 %: the stages lie where three halving stages come nearest to it. "
    "InternVL2's TTFT is not recorded (docs/performance.md has the command that measures it): it "
    "stands in print only.",
)

ENCODER_FREE: Final = _artefact(
    "L-T3",
    "Without a vision encoder: EVE",
    "EVE-7B v1 and v1-HD, which read patches without a vision encoder, with FastV and LightKV.",
    layout("L-T3", COCO, *MME, NOCAPS, *POPE, VIZWIZ, WHERE),
    (
        _claim(
            "LightKV works on encoder-free models as well.",
            3,
            judge_encoder_free,
            "on a model without a vision encoder: share of the full cache's score over all tasks "
            "at least 0.95, at each rate",
        ),
        _claim(
            "On encoder-free models LightKV beats FastV.",
            3,
            judge_encoder_free_pruner,
            f"on a model without a vision encoder: {_LEADS_RULE}",
        ),
    ),
    methods=("fastv", "lightkv"),
    shares=(0.55,),
    seconds=20,
    explanation=_STANDS_IN
    + "Ours is a Fuyu: one linear map takes a patch into the decoder, whose layers do all the "
    "seeing, so what is merged early holds little more than pixels. The paper prints 99.2 and "
    "96.6 % for LightKV: the claim is judged at 95. A model with a vision encoder shows its rows, "
    "and both claims say that they need one without. Methods that read the encoder (HiRED, "
    "VisionZip and their like) are refused.",
    models=(FUYU,),
)

QWEN: Final = _artefact(
    "L-T7",
    "Methods on Qwen2.5-VL at 55 %",
    "Qwen2.5-VL-7B with LightKV and four methods in prefill at 55 %.",
    layout("L-T7", COCO, GQA, *MME, NOCAPS, *POPE, SEED, VIZWIZ),
    (_claim("LightKV leads the other methods in prefill at 55 %.", 7, judge_all, _LEADS_RULE),),
    methods=("fastv", "tome", "pitome", "tofu", "lightkv"),
    shares=(0.55,),
    seconds=5,
    explanation=_STANDS_IN
    + "The paper's averages include COCO in some rows and not in others, so compare its columns, "
    "not its Avg. The model asked here numbers positions along one axis; with --model a "
    "Qwen2.5-VL answers instead.",
)
