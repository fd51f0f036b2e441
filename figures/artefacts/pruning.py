"""T-T6: token pruning before the decoder against eviction after prefill, at equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.columns import Column
from figures.artefacts.layout import Layout
from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.published import GQA, MME_BOTH, POPE_F1
from figures.artefacts.score_tables import HERE, lines, table
from figures.artefacts.shared import legend_below, pick, planned
from figures.compound import worst_of
from figures.contract import Artefact, Claim
from figures.style import canvas
from figures.verdicts import Verdict, better, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LAYOUT: Final = Layout(
    "T-T6",
    (
        Column("mme", "score", "MME", "embedded/count", MME_BOTH, points=True),
        Column("pope", "score", "POPE", "embedded/exist", POPE_F1),
        Column("gqa", "score", "GQA", "embedded/where", GQA),
    ),
    "kept",
    lambda kept: f"{kept:g} of 576",
    percent=True,
)


def draw(frame: pd.DataFrame) -> Figure:
    """Ours above the paper's, a panel per benchmark."""
    data, numbers = LAYOUT.plotted(frame), LAYOUT.numbers()
    sizes = sorted(set(data["kept"]) - {576})
    here = LAYOUT.asked(frame).panels(data)
    figure, axes = canvas(2, max(3, len(here)), height=2.2)
    for place, (name, cells) in zip(axes[0], here, strict=False):
        lines(place, cells, sizes, "kept", "score")
        place.set_title(f"here: {name}")
        place.set_ylabel(LAYOUT.unit(name))
    for place, column in zip(axes[1], LAYOUT.columns, strict=False):
        theirs = pick(numbers, benchmark=column.benchmark)
        theirs = theirs.assign(
            kept=theirs["setting"].str.removeprefix("kept=").astype(int),
            compared=theirs["method"].replace({"tgv-kv": "tgvkv"}),
            score=theirs["value"] / 100,
        )
        lines(place, theirs, sizes, "kept", "score")
        place.set_title(f"paper: {column.title}")
        place.set_ylabel(LAYOUT.unit(column.title))
    for place in [*axes[0, len(here) :], *axes[1, len(LAYOUT.columns) :]]:
        place.set_visible(False)
    for place in axes.ravel():
        place.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
        place.set_xlabel("vision tokens kept, of 576")
    legend_below(figure, axes[1, 0], 6)
    return figure


def held(model: str, method: str, at: Any, rows: pd.DataFrame) -> dict[Any, Any]:
    """What ours held and processed."""
    if model != HERE:
        return {}
    shares = rows[["kv_share", "token_share"]].mean()
    return {
        ("KV held", "%"): f"{100 * shares['kv_share']:.1f}",
        ("token-layers", "%"): f"{100 * shares['token_share']:.0f}",
    }


def judge_eviction_leads(frame: pd.DataFrame) -> Verdict:
    """Does eviction beat every pruner at every size?"""
    pruners = [m for m in dict.fromkeys(frame["compared"]) if m not in ("tgvkv", VANILLA)]
    sizes = sorted(set(frame["kept"]) - {576}, reverse=True)
    if not pruners or "tgvkv" not in set(frame["compared"]):
        return untestable("pruning and eviction were not both run")
    return worst_of(
        better(
            pick(frame, compared="tgvkv", kept=size),
            pick(frame, compared=name, kept=size),
            f"TGV-KV over {LOOKS[name].label} at {size:g} of 576, all tasks",
            whole=pick(frame, compared=VANILLA),
        )
        for size in sizes
        for name in pruners
    )


AGAINST_PRUNING: Final = Artefact(
    id="T-T6",
    title="KV eviction against token pruning",
    source="TGV-KV, Table 6",
    shows="Four methods that drop vision tokens before the decoder and TGV-KV, at 128, 64 and 32 "
    "of 576 vision tokens.",
    study="pruning_against_eviction",
    planned=planned(128),
    seconds=50,
    plotted=LAYOUT.plotted,
    draw=draw,
    table=lambda frame: table(frame, LAYOUT, held),
    claims=(
        Claim(
            "At equal size, evicting entries after prefill beats pruning tokens before it.",
            "TGV-KV, Table 6",
            judge_eviction_leads,
            "paired difference over all tasks above 0 against each pruner at each size",
            main=True,
        ),
    ),
    caption="Score against the vision tokens kept, of 576; upper row ours with 95 % intervals, "
    "lower row the paper's print. Dotted: full cache.",
    explanation="The comparison is built into the protocol: eviction acts after the whole prompt "
    "was read with every vision token, so the first word of an answer, which is all that a short "
    "answer has, comes from the full cache. Pruning saves prefill as well, eviction doesn't. "
    "CDPruner reads the question with the text tower of a CLIP whose vision tower is the model's; "
    "the embedded model has none, so it is in print only there. "
    "Sizes are the paper's shares of 576, carried over to this model's image; all text stays. The "
    "paper names neither its model nor which scores of MME and POPE it prints. With --benchmarks "
    "MME is perception and cognition together (LightKV's Table 1 has 1865 for LLaVA-1.5-7B, this "
    "table 1781) and POPE is F1; look at the row of the full cache first.",
    alt="Line charts of score against vision tokens kept for four pruners and TGV-KV, ours above "
    "the paper's.",
    paper="T-T6",
    benchmarks=LAYOUT.benchmarks,
)
