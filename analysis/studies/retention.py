"""X-1: score against the share of the cache that is held, for every task."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Unpack

from analysis.studies.base import SAMPLES, Settings, Tasks, register
from analysis.studies.sweep import Cell, sweep
from analysis.tasks.embedded import EVERY_KIND
from lightkv import TGVKV, LightKV
from lightkv.catalogue import method
from lightkv.merging.schedule import PAPER, scaled

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

RETENTIONS = (0.5, 0.2, 0.1, 0.05)
SCHEDULES = (PAPER.layers, (10, 17, 24), (5, 11, 17), (0, 4, 8))
"""Merging layers of a model of 40 layers: the paper's, then ever shallower ones that hold less.
Every layer up to the first stage caches in full, so merging can't go far below a fifth."""


@register
def retention_sweep(
    vlm: VLM,
    *,
    tasks: Tasks = EVERY_KIND,
    retentions: tuple[float, ...] = RETENTIONS,
    schedules: tuple[tuple[int, ...], ...] = SCHEDULES,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """The full cache, LightKV, TGV-KV and random eviction.

    Args:
        vlm: The model.
        tasks: What is asked.
        retentions: Shares of the cache that TGV-KV and random eviction keep.
        schedules: Merging layers of LightKV in a model of 40 layers, carried over to this one's
            depth with the paper's windows and ratios.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``family`` ("vanilla", "lightkv", "tgvkv", "random") and ``setting``.
    """
    cells = {}
    for layers in schedules:
        wanted = dataclasses.replace(PAPER, layers=layers)
        light = LightKV.of(scaled(vlm.facts.layers, schedule=wanted))
        setting = "Λ " + ",".join(map(str, light.layers))
        cells[f"lightkv {setting}"] = Cell(light, {"family": "lightkv", "setting": setting})
    for retention in retentions:
        setting = f"{100 * retention:g} %"
        for family, evictor in (
            ("tgvkv", TGVKV(retention=retention)),
            ("random", method("random", retention)),
        ):
            cells[f"{family} {setting}"] = Cell(evictor, {"family": family, "setting": setting})
    nothing = {"family": "vanilla", "setting": "full"}
    return sweep(vlm, tasks, cells, nothing, samples, settings)
