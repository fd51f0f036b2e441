"""The papers' tables of methods: those that act in prefill, and those that evict afterwards.

L-T1, L-T2, L-T3, L-T7, L-T8, L-F4 and L-T9 compare methods at a share of the token-layers (LightKV,
Eq. 9); T-T2, T-T3, T-T7 and T-T8 evictors at a share of the cache; T-T6 both at equal size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Unpack

from analysis.studies.base import SAMPLES, Settings, Tasks, register
from analysis.studies.shares import PAPER_SHARE, at_token_share, pruned, reachable
from analysis.studies.sweep import Cell, sweep
from lightkv import LightKV
from lightkv.catalogue import method
from lightkv.merging.schedule import scaled

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

IN_PREFILL: Final = ("fastv", "hired", "tofu", "pitome", "tome", "lightkv")
AFTER_PREFILL: Final = ("elasticcache", "random", "random-vision", "tome-cache")
EVICTORS: Final = ("streamingllm", "snapkv", "h2o", "elasticcache", "prefixkv", "tgvkv")
PRUNERS: Final = ("divprune", "visionzip", "vispruner", "cdpruner")

ANSWERS: Final = ("embedded/exist", "embedded/where", "embedded/read", "embedded/caption")
"""Stand for POPE; GQA; VizWiz, SEED and MME; COCO and NoCaps."""

READING: Final = ("embedded/read", "embedded/list")
"""Stand for what ChartQA, DocVQA, VizWiz and TextVQA ask: to read several things in a picture."""

CAPTIONS: Final = ("embedded/caption",)
SHORT: Final = ("embedded/exist", "embedded/where", "embedded/count")
"""Stand for POPE, GQA and MME."""

WHOLE: Final = 576
OF_576: Final = (128, 64, 32)
"""Vision tokens kept in TGV-KV's Table 6, of :data:`WHOLE`."""


@register
def prefill_methods(
    vlm: VLM,
    *,
    tasks: Tasks = ANSWERS,
    methods: Sequence[str] = (*AFTER_PREFILL, *IN_PREFILL),
    shares: Sequence[float] = (PAPER_SHARE,),
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Merging, pruning and cache baselines of LightKV's tables.

    Args:
        vlm: The model.
        tasks: What is asked.
        methods: Registered names: of :data:`IN_PREFILL` and :data:`AFTER_PREFILL`.
        shares: Of the token-layers that methods in prefill process, and of the cache that the
            others hold.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` (the registered name), ``share`` (asked for; 1 for the
        full cache) and ``encoder`` (whether the model has a vision encoder). A method that can't
        reach a share at this depth is left out there.
    """
    depth = vlm.facts.layers
    cells = {
        f"{name} {100 * share:g} %": Cell(
            at_token_share(name, share, depth), {"compared": name, "share": share}
        )
        for share in shares
        for name in methods
        if reachable(name, share, depth)
    }
    whole = {"compared": "vanilla", "share": 1.0}
    frame = sweep(vlm, tasks, cells, whole, samples, settings)
    return frame.assign(encoder=vlm.family.has_encoder)


@register
def window_schedules(
    vlm: VLM,
    *,
    tasks: Tasks = ANSWERS,
    windows: Sequence[tuple[int, ...]] = ((4, 2, 1), (6, 4, 2)),
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """LightKV at the paper's layers with several window schedules W.

    Args:
        vlm: The model.
        tasks: What is asked.
        windows: Windows per side at each stage.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` ("lightkv") and ``windows`` ("4,2,1"); "vanilla" and "" for
        the full cache.
    """
    schedule = scaled(vlm.facts.layers)
    cells = {}
    for counts in windows:
        named = ",".join(map(str, counts))
        light = LightKV(schedule.layers, tuple(counts), schedule.ratios)
        cells[f"W {named}"] = Cell(light, {"compared": "lightkv", "windows": named})
    nothing = {"compared": "vanilla", "windows": ""}
    return sweep(vlm, tasks, cells, nothing, samples, settings)


@register
def evictors_compared(
    vlm: VLM,
    *,
    tasks: Tasks = READING,
    methods: Sequence[str] = EVICTORS,
    retentions: Sequence[float] = (0.5, 0.2, 0.1, 0.05),
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Evictors at several budgets.

    Args:
        vlm: The model.
        tasks: What is asked.
        methods: Registered names of evictors.
        retentions: Shares of the cache that stay (of its vision entries, for methods on vision).
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` (the registered name) and ``retention`` (1 for the full
        cache).
    """
    cells = {
        f"{name} {100 * retention:g} %": Cell(
            method(name, retention), {"compared": name, "retention": retention}
        )
        for retention in retentions
        for name in methods
    }
    return sweep(vlm, tasks, cells, {"compared": "vanilla", "retention": 1.0}, samples, settings)


@register
def pruning_against_eviction(
    vlm: VLM,
    *,
    tasks: Tasks = SHORT,
    pruners: Sequence[str] = PRUNERS,
    kept: Sequence[int] = OF_576,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Token pruning before the decoder, and TGV-KV with as many vision entries in each cache.

    Args:
        vlm: The model.
        tasks: What is asked.
        pruners: Registered names.
        kept: Vision tokens that stay of 576; the same shares of this model's are kept.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` (the registered name) and ``kept`` (of 576). What the model
        refuses is left out: CDPruner needs the text tower that belongs to its vision tower. Where
        pictures have grids of different sizes, VisionZip, VisPruner and CDPruner keep the first
        question's number of each.
    """
    tokens, cells = _vision_tokens(vlm, tasks, samples, settings), {}
    for count in kept:
        for name in pruners:
            pruner = pruned(name, count / WHOLE, tokens)
            cells[f"{name} {count}"] = Cell(pruner, {"compared": name, "kept": count})
        evictor = method("tgvkv-vision-only", count / WHOLE)
        cells[f"tgvkv {count}"] = Cell(evictor, {"compared": "tgvkv", "kept": count})
    full = {"compared": "vanilla", "kept": WHOLE}
    return sweep(vlm, tasks, cells, full, samples, settings, on_refusal=lambda *_: None)


def _vision_tokens(vlm: VLM, tasks: Tasks, samples: int, settings: Settings) -> int:
    """Vision tokens of the prompt of the first of the questions that are asked.

    A benchmark can't be asked for one question alone where several are about one picture.
    """
    from analysis.tasks import task

    first = task(tasks[0]) if isinstance(tasks[0], str) else tasks[0]
    item = first.items(samples or None, settings.get("seed", 0))[0]
    return int(vlm.layout(vlm.encode([item.request()])).vision.sum())
