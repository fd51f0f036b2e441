"""T-T1 and T-T5: TGV-KV taken apart into budget, ranking and retention."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from analysis.studies.base import SAMPLES, Settings, Tasks, register
from analysis.studies.sweep import Cell, sweep
from lightkv import TGVKV
from lightkv.catalogue import method
from lightkv.contract.compressor import Compressor
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.eviction.parts.selections import WindowFirst

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

RESPONSIVE = ("embedded/read", "embedded/list")
"""Answers of several words: the first word of an answer is decided before anything is evicted."""

PARTS = ("tvb", "twr", "tpr")
"""Text-vision budgeting, text-weighted ranking, text-prioritised retention."""

PAPER_WINDOW_SHARE = 0.1
"""The paper's window of 64 queries in a prompt of LLaVA-1.5, about 640 tokens."""

_PILOT = {
    "a": {"uniform": "budget-uniform", "VV": "budget-vv", "TT": "budget-tt", "TV": "budget-tv"},
    "b": {"self-attention": "rank-self", "VV+TT": "rank-vv-tt", "TV+TT": "rank-tv-tt"},
    "c": {"vision": "evict-vision-first", "text": "evict-text-first"},
}


@register
def budget_ranking_retention_pilot(
    vlm: VLM,
    *,
    tasks: Tasks = RESPONSIVE,
    retentions: tuple[float, ...] = (0.5, 0.2, 0.05),
    window: int | None = None,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """One part varied at a time.

    (a) Budgets uniform, VV, TT, TV under the TV+TT ranking; (b) rankings by observation window,
    self-attention, VV+TT, TV+TT under a uniform budget; (c) vision or text first, at random.

    Args:
        vlm: The model.
        tasks: What is asked.
        retentions: Shares of the cache that stay.
        window: Queries of the observation window; None for a tenth of the first prompt, as the
            paper's 64 are of LLaVA's.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``block`` ("a", "b", "c"), ``variant`` and ``retention``; for the full
        cache "", "vanilla" and 1.
    """
    queries = _window(vlm, tasks, settings) if window is None else window
    cells = {}
    for retention in retentions:
        for block, variants in _PILOT.items():
            for variant, name in variants.items():
                columns = {"block": block, "variant": variant, "retention": retention}
                cells[f"{block} {variant} {retention}"] = Cell(method(name, retention), columns)
        observed = Evicting(
            ranking=ObservationWindow(queries), selection=WindowFirst(queries), retention=retention
        )
        columns = {"block": "b", "variant": "observation-window", "retention": retention}
        cells[f"b observation-window {retention}"] = Cell(observed, columns)
    nothing = {"block": "", "variant": "vanilla", "retention": 1.0}
    return sweep(vlm, tasks, cells, nothing, samples, settings)


@register
def component_ablation(
    vlm: VLM,
    *,
    tasks: Tasks = RESPONSIVE,
    retentions: tuple[float, ...] = (0.2, 0.05),
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Every combination of TVB, TWR and TPR; without one, the uniform budget, self-attention
    ranking or retention by score takes its place.

    Args:
        vlm: The model.
        tasks: What is asked.
        retentions: Shares of the cache that stay.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``tvb``, ``twr``, ``tpr`` (None for the full cache) and ``retention``.
    """
    cells = {}
    for parts in itertools.product((False, True), repeat=len(PARTS)):
        for retention in retentions:
            columns = {**dict(zip(PARTS, parts, strict=True)), "retention": retention}
            cells[f"{_named(parts)} {retention}"] = Cell(with_parts(parts, retention), columns)
    nothing = {**dict.fromkeys(PARTS), "retention": 1.0}
    return sweep(vlm, tasks, cells, nothing, samples, settings)


def with_parts(parts: Sequence[bool], retention: float) -> Compressor:
    """TGV-KV with those of :data:`PARTS` that are true, its ablation without the others."""
    return TGVKV(retention=retention) if all(parts) else method(_named(parts), retention)


def _named(parts: Sequence[bool]) -> str:
    """Registered name of a combination of parts."""
    return "tvb{:d}-twr{:d}-tpr{:d}".format(*parts)


def _window(vlm: VLM, tasks: Tasks, settings: Settings) -> int:
    from analysis.tasks import task

    first = task(tasks[0]) if isinstance(tasks[0], str) else tasks[0]
    item = first.items(1, settings.get("seed", 0))[0]
    layout = vlm.layout(vlm.encode([item.request()]))
    return max(1, round(PAPER_WINDOW_SHARE * layout.length))
