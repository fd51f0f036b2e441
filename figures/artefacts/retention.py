"""X-1: accuracy against retained KV, every task family, four methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.shared import (
    cell_of,
    evictable,
    here,
    legend_below,
    pick,
    planned,
    points,
    printed,
    setting,
    short,
    summary,
)
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, canvas, look
from figures.verdicts import Verdict, better, collapses, keeps, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPRESSED: Final = ("lightkv", "tgvkv", "random")
PRESERVED: Final = 0.98
NEARLY: Final = 0.95
COLLAPSED: Final = 0.5
OPEN_ENDED: Final = ("caption", "coco", "nocaps", "textcaps")
COLUMNS: Final = 4
MODEL: Final = "llava-1.5-7b"
LIGHTKV_SHARE: Final = 0.55
"""Token-layers that LightKV processes at its main setting, as a share of all."""


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score with interval and share of the cache held, per task, method and setting."""
    return summary(frame, ("task", "family", "setting"))


def draw(frame: pd.DataFrame) -> Figure:
    """One panel per task: score against the share of the full cache that is held."""
    data = plotted(frame)
    tasks = list(dict.fromkeys(data["task"]))
    figure, axes = task_panels(tasks)
    for place, task in zip(axes.flat, tasks, strict=False):
        _panel(place, pick(data, task=task))
    legend_below(figure, axes[0, 0], 4)
    return figure


def _panel(axes: Axes, data: pd.DataFrame) -> None:
    for method in COMPRESSED:
        cells = pick(data, family=method).sort_values("kv_share")
        if len(cells):
            points(axes, (100 * cells["kv_share"]).tolist(), cells, look(method))
    full = pick(data, family="vanilla")
    if len(full):
        first = full.iloc[0]
        axes.axhspan(100 * first["low"], 100 * first["high"], color=BLACK, alpha=0.08, linewidth=0)
        axes.axhline(100 * first["score"], color=BLACK, linestyle=":", label=look("vanilla").label)
    share_axis(axes)


def task_panels(tasks: Sequence[str]) -> tuple[Figure, Any]:
    """A figure with a titled panel per task for scores against the share held, and its axes."""
    columns = min(COLUMNS, len(tasks))
    figure, axes = canvas(-(-len(tasks) // columns), columns, height=2.0, sharex=True)
    for place, task in zip(axes.flat, tasks, strict=False):
        place.set_title(short(task))
    for place in axes.flat[len(tasks) :]:
        place.set_visible(False)
    for place in axes[:, 0]:
        place.set_ylabel("score, %")
    for place in axes[-1]:
        place.set_xlabel("KV held, %")
    return figure, axes


def share_axis(axes: Axes) -> None:
    """Shares of the cache on a log scale below, scores in percent at the side."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-4, 104)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method and setting, one column a task; two of the papers' benchmarks beside."""
    import pandas as pd

    data = plotted(frame)
    rows = []
    for (family, setting_), cells in data.groupby(["family", "setting"], sort=False):
        row: dict[tuple[str, str], object] = {
            ("method", ""): look(str(family)).label,
            ("setting", ""): setting_,
            ("KV held, %", ""): f"{100 * cells['kv_share'].mean():.1f}",
        }
        for task in dict.fromkeys(data["task"]):
            row[here(frame), f"{short(task)}, %"] = cell_of(pick(cells, task=task))
        row |= _paper_columns(str(family), cells["kv_share"].mean())
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _paper_columns(family: str, held: float) -> dict[tuple[str, str], object]:
    """What the papers print for the same method on LLaVA-1.5-7B at about the same share held."""
    from figures import paper

    evicted, merged = paper.numbers("T-T2"), paper.numbers("L-T1")
    tgv, light = {"vanilla": ("vanilla", "vanilla"), "tgvkv": ("tgv-kv", "")}.get(
        family, ("", {"lightkv": "lightkv", "random": "rand"}.get(family, ""))
    )
    printed_at = setting(evicted, "retention").str.rstrip("%").replace("", "nan").astype(float)
    near = (printed_at / 100 - held).abs() < 0.1 * held
    cells = evicted if family == "vanilla" else evicted[near]
    wide = family == "vanilla" or abs(held - LIGHTKV_SHARE) < 0.1 * LIGHTKV_SHARE
    return {
        ("paper (LLaVA-1.5-7B)", title): value
        for title, value in {
            "ChartQA, %": printed(cells, model=MODEL, method=tgv, benchmark="chartqa"),
            "TextVQA, %": printed(cells, model=MODEL, method=tgv, benchmark="textvqa"),
            "COCO, CIDEr": printed(
                merged, model=MODEL, method=light if wide else "", benchmark="coco-caption"
            ),
        }.items()
    }


def _cells(frame: pd.DataFrame, family: str, retention: float) -> pd.DataFrame:
    rows = pick(frame, family=family)
    return rows[(rows["requested_retention"] - retention).abs() < 1e-6]


def _retentions(frame: pd.DataFrame, family: str) -> list[float]:
    requested = pick(frame, family=family)["requested_retention"].dropna().unique()
    return sorted((float(retention) for retention in requested), reverse=True)


def judge_preserved(frame: pd.DataFrame) -> Verdict:
    """Does LightKV, at the setting that processes 55 %, keep 98 % of the full cache's score?"""
    light = pick(frame, family="lightkv")
    if light.empty:
        return untestable("LightKV was not run")
    shares = light.groupby("setting")["token_share"].mean()
    nearest = str((shares - LIGHTKV_SHARE).abs().idxmin())
    text = f"LightKV ({nearest}, {100 * shares[nearest]:.0f} % of token-layers), share of vanilla"
    return keeps(pick(light, setting=nearest), pick(frame, family="vanilla"), PRESERVED, text)


def judge_tight(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV keep 95 % of the full cache's score at its tightest budget?"""
    frame = evictable(frame)
    retentions = _retentions(frame, "tgvkv")
    if not retentions:
        return untestable("TGV-KV was not run")
    tightest = retentions[-1]
    text = f"TGV-KV at {100 * tightest:g} %, tasks of several words, share of vanilla"
    return keeps(_cells(frame, "tgvkv", tightest), pick(frame, family="vanilla"), NEARLY, text)


def judge_beats_random(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV score above random eviction at every retention?"""
    frame = evictable(frame)
    shared = [r for r in _retentions(frame, "tgvkv") if r in _retentions(frame, "random")]
    return all_of(
        better(
            _cells(frame, "tgvkv", r),
            _cells(frame, "random", r),
            f"TGV-KV over random at {100 * r:g} %, tasks of several words",
            whole=pick(frame, family="vanilla"),
        )
        for r in shared
    )


def judge_random_collapses(frame: pd.DataFrame) -> Verdict:
    """Does random eviction of half of the cache halve the score of open-ended generation?"""
    tasks = [t for t in dict.fromkeys(frame["task"]) if any(name in t for name in OPEN_ENDED)]
    retentions = _retentions(frame, "random")
    if not tasks or not retentions:
        return untestable("no open-ended task was asked under random eviction")
    most = retentions[0]
    return collapses(
        _cells(pick(frame, task=tasks), "random", most),
        pick(frame, task=tasks, family="vanilla"),
        COLLAPSED,
        f"random at {100 * most:g} % on {', '.join(map(short, tasks))}, share of vanilla",
    )


ACCURACY_AGAINST_RETAINED_KV: Final = Artefact(
    id="X-1",
    title="Accuracy against retained KV",
    source="our own, across both papers",
    shows="Every task under the full cache, LightKV, TGV-KV and random eviction, from half of the "
    "cache down to a twentieth.",
    study="retention_sweep",
    planned=planned(128),
    seconds=170,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "Over all kinds of questions LightKV at 55 % keeps 98 % of the full cache's score.",
            "LightKV, Section 5 on Table 1",
            judge_preserved,
            "mean over tasks, share of the full cache's, at least 0.98",
        ),
        Claim(
            "TGV-KV keeps nearly all of the full cache's score at 5 %.",
            "TGV-KV, abstract and Table 2",
            judge_tight,
            "score minus 0.95 of the full cache's above 0, tasks with answers of several words",
            main=True,
        ),
        Claim(
            "TGV-KV beats random eviction at every retention.",
            "TGV-KV, Table 1 (c) and Table 2",
            judge_beats_random,
            "paired difference above 0 at each retention, tasks with answers of several words",
        ),
        Claim(
            "Random eviction after prefill collapses on open-ended generation.",
            "LightKV, Section 5 on Table 1",
            judge_random_collapses,
            "at most half of the full cache's score on captions at the mildest retention asked",
        ),
    ),
    caption="Score with 95 % interval against the share of the full cache's bytes held after "
    "prefill. Dotted: full cache with its interval.",
    explanation="Eviction acts after prefill, so the first word of an answer never depends on it: "
    "in families with one-word answers (color, shape_at, count, exist) an evictor can only spoil "
    "how the answer ends, by a word too many. Answers of several words (where, read, list, "
    "caption) need the evicted entries. LightKV merges during prefill and can cost any family; its "
    "points can't reach far left, since every layer up to its first stage caches in full. The "
    "papers' columns stand where a method was printed at about the same share held.",
    alt="One panel per task family: score against the share of the cache held, for LightKV, TGV-KV "
    "and random eviction, with the full cache as a dotted line.",
)
