"""L-T6 and L-F1: what follows from the papers' dimensions and schedules; no model is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.asking.rows import VANILLA
from analysis.studies.base import register, remembered
from lightkv.cost.presets import MergeSchedule, preset
from lightkv.cost.records import GIB
from lightkv.cost.workload import Workload, prefill_memory, workload_cost

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store

LARGE = ("llava-1.5-13b", "llava-next-13b")
FOUR = ("llava-1.5-7b", "llava-1.5-13b", "llava-next-7b", "llava-next-13b")
STAGES = ((15, 23, 31), (17, 24, 31))
WINDOWS = ((4, 2, 1), (6, 4, 2))


@register
def schedule_cost(
    *,
    models: Sequence[str] = LARGE,
    stages: Sequence[tuple[int, ...]] = STAGES,
    windows: Sequence[tuple[int, ...]] = WINDOWS,
    ratio: float = 0.5,
    store: Store | None = None,
) -> pd.DataFrame:
    """FLOPs and KV memory of a request of 48 prompt and 100 generated tokens per schedule.

    Args:
        models: Presets.
        stages: Merging layers Λ.
        windows: Windows per side W; every one is combined with every Λ.
        ratio: Share that merges away at each stage.
        store: Where the table is kept.

    Returns:
        Columns model, title, layers and windows ("15,23,31", "4,2,1"; "" for the full cache),
        flops (10^12) and kv (GiB).
    """
    configuration = {"models": models, "stages": stages, "windows": windows, "ratio": ratio}
    schedules = [
        MergeSchedule(layers, counts, (ratio,) * len(layers))
        for layers in stages
        for counts in windows
    ]

    def compute() -> pd.DataFrame:
        import pandas as pd

        rows = [_cost(name, schedule) for name in models for schedule in (None, *schedules)]
        return pd.DataFrame(rows)

    return remembered("schedule_cost", store, configuration, compute)


@register
def memory_breakdown(*, models: Sequence[str] = FOUR, store: Store | None = None) -> pd.DataFrame:
    """Memory at the end of prefill, part by part, with and without LightKV.

    Each model has the first of its published schedules.

    Args:
        models: Presets with a published schedule.
        store: Where the table is kept.

    Returns:
        Columns model, title, method ("vanilla", "lightkv"), part ("weights", "rest", "text KV",
        "vision KV") and gib.
    """

    def compute() -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame([row for name in models for row in _memory(name)])

    return remembered("memory_breakdown", store, {"models": models}, compute)


def _cost(name: str, schedule: MergeSchedule | None) -> dict[str, Any]:
    model = preset(name)
    cost = workload_cost(model.shape, Workload.of(model), schedule=schedule)
    return {
        "model": name,
        "title": model.title,
        "layers": _joined(schedule.layers if schedule else ()),
        "windows": _joined(schedule.windows if schedule else ()),
        "flops": cost.flops.tera,
        "kv": cost.kv.gib,
    }


def _memory(name: str) -> list[dict[str, Any]]:
    model = preset(name)
    rows = []
    for method, schedule in ((VANILLA, None), ("lightkv", model.schedules[0])):
        memory = prefill_memory(model.shape, Workload.of(model), schedule=schedule)
        for field in dataclasses.fields(memory):
            part = field.name.replace("_kv", " KV")
            rows.append(
                {
                    "model": name,
                    "title": model.title,
                    "method": method,
                    "part": part,
                    "gib": getattr(memory, field.name) / GIB,
                }
            )
    return rows


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
