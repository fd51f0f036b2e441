"""X-7: what each departure of the released code from its paper does, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

import numpy as np

from analysis import provenance
from analysis.studies.base import (
    SAMPLES,
    Settings,
    Tasks,
    model_configuration,
    register,
    remembered,
)
from analysis.studies.sweep import Cell, sweep
from analysis.tasks import Task, task
from lightkv import TGVKV, LightKV
from lightkv.contract.compressor import Compressor
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.tgvkv_released import ReleasedTextVision
from lightkv.eviction.parts.decoding import EvictOne
from lightkv.eviction.parts.selections import TextFirst
from lightkv.eviction.parts.text_grounded import TextWeighted
from lightkv.merging.schedule import scaled

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM
    from lightkv.cost.presets import MergeSchedule
    from lightkv.engine.record import RunRecord

PAPER: Final = "paper"
WHOLE: Final = "all"
RETENTION: Final = 0.2
COMPARED: Final = 6
"""Questions per task on which the contents of layers are compared."""

Held = set[tuple[int, int]]
"""Prompt positions, each with the position that stands for it."""

TASKS: Final = ("embedded/read", "embedded/caption")


def lightkv_variants(schedule: MergeSchedule) -> dict[str, LightKV]:
    """The paper's LightKV, each of the released code's choices alone, and all of them."""
    paper = LightKV.of(schedule)

    def with_(**change: Any) -> LightKV:
        return dataclasses.replace(paper, **change)

    return {
        PAPER: paper,
        "guidance": with_(guidance="random"),
        "normalise": with_(normalise="queries"),
        "partition": with_(partition="square-blocks"),
        "positions": with_(positions="reindex-prefill"),
        "first layer": with_(first_layer="two-way"),
        "counting": with_(counting="float32"),
        "small images": with_(min_tokens=8),
        WHOLE: LightKV.released("llava", schedule.layers, schedule.windows, schedule.ratios),
    }


def tgvkv_variants(retention: float) -> dict[str, Evicting]:
    """The paper's TGV-KV, each of the released code's choices alone, and all of them."""
    paper = TGVKV(retention=retention)

    def with_(**change: Any) -> Evicting:
        return dataclasses.replace(paper, **change)

    return {
        PAPER: paper,
        "redistribute": with_(redistribute=False),
        "rounding": with_(budget=ReleasedTextVision()),
        "text scope": with_(ranking=TextWeighted(text_scope="all")),
        "system text": with_(selection=TextFirst("text")),
        "decoding": with_(decode=EvictOne(paper.protect_first)),
        "README's ratio": with_(retention=round(1 - retention, 6)),
        WHOLE: TGVKV.released(retention),
    }


@register
def released_choices(
    vlm: VLM,
    *,
    tasks: Tasks = TASKS,
    retention: float = RETENTION,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Both methods as their papers say, and with each departure of their released code.

    Args:
        vlm: The model.
        tasks: What is asked.
        retention: Of TGV-KV.
        samples: Questions per task; what is held is compared on the first six.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` ("lightkv", "tgvkv", "vanilla"), ``departure`` ("paper",
        the choice that is taken from the code, "all"; "" for the full cache) and ``overlap`` with
        the paper's variant (Jaccard, mean over layers): of the entries that are held, or of the
        pairs of vision token and merged token; NaN where they were not compared.
    """
    variants: dict[str, Mapping[str, Compressor]] = {
        "lightkv": lightkv_variants(scaled(vlm.facts.layers)),
        "tgvkv": tgvkv_variants(retention),
    }
    cells = {
        f"{name}, {departure}": Cell(method, {"compared": name, "departure": departure})
        for name, several in variants.items()
        for departure, method in several.items()
    }
    full = {"compared": "vanilla", "departure": ""}
    frame = sweep(vlm, tasks, cells, full, samples, settings)
    shared = _overlaps(vlm, tasks, variants, min(samples, COMPARED), settings)
    return frame.merge(shared, on=["compared", "departure", "task", "item"], how="left")


def _overlaps(
    vlm: VLM,
    tasks: Tasks,
    variants: Mapping[str, Mapping[str, Compressor]],
    samples: int,
    settings: Settings,
) -> pd.DataFrame:
    """Overlap of what every variant holds with the paper's, per question."""
    wanted = [task(one) if isinstance(one, str) else one for one in tasks]
    seed = settings.get("seed", 0)
    methods = [method for several in variants.values() for method in several.values()]
    configuration = model_configuration(vlm) | {
        "tasks": [[one.name, one.fingerprint] for one in wanted],
        "methods": [provenance.described(method) for method in methods],
        "samples": samples,
        "seed": seed,
    }

    def compute() -> pd.DataFrame:
        import pandas as pd

        rows = []
        for one in wanted:
            for name, several in variants.items():
                kept = {d: _kept(vlm, one, m, samples, seed) for d, m in several.items()}
                for departure, item in ((d, item) for d in kept for item in kept[d]):
                    share = jaccard(kept[departure][item], kept[PAPER][item])
                    where = {"compared": name, "departure": departure, "task": one.name}
                    rows.append({**where, "item": item, "overlap": share})
        return pd.DataFrame(rows)

    parts = (*methods, *wanted, vlm.family)
    return remembered("released_choices", settings.get("store"), configuration, compute, parts)


def _kept(
    vlm: VLM, source: Task, method: Compressor, samples: int, seed: int
) -> dict[int, list[Held]]:
    """By question what each layer holds after the prefill."""
    items = source.items(samples, seed)
    inputs = vlm.encode([item.request() for item in items], method)
    run = vlm.generate(inputs, method, seed=seed, max_new_tokens=1, do_sample=False)
    return {item.index: held(one) for item, one in zip(items, run.records, strict=True)}


def held(record: RunRecord) -> list[Held]:
    """Positions that each layer holds; of a merging method, per layer after its first stage, each
    vision token with the position of the token that it is part of."""
    merged = [layer.provenance for layer in record.layers if layer.provenance is not None]
    if not merged:
        kept = [layer.kept.flatten().tolist() for layer in record.layers]
        return [{(place, place) for place in places if place >= 0} for places in kept]
    vision = record.layout.vision[0].nonzero()[:, 0].tolist()
    return [
        set(zip(vision, part.index[0, part.target[0, vision]].tolist(), strict=True))
        for part in merged
    ]


def jaccard(one: Sequence[Held], other: Sequence[Held]) -> float:
    """Shared pairs by those that either holds, mean over layers."""
    return float(np.mean([len(a & b) / len(a | b) for a, b in zip(one, other, strict=True)]))
