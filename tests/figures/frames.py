"""Of every artefact a small frame with the columns that its study returns."""

from __future__ import annotations

import pandas as pd

from figures.contract import Artefact
from figures.making import study_of
from lightkv import Request
from lightkv.contract.compressor import Compressor
from tests.analysis.fake import FakeVLM
from tests.figures.cost_frames import beside_record, memory_breakdown, request_times, schedule_cost
from tests.figures.map_frames import kept_maps, merge_maps
from tests.figures.method_frames import (
    all_combinations,
    by_length,
    every_method,
    evictors_compared,
    evictors_on_video,
    prefill_methods,
    pruning_against_eviction,
    released_choices,
    window_schedules,
)
from tests.figures.probing_frames import FRAMES as PROBING
from tests.figures.score_frames import (
    ablation,
    layer_sweep,
    pilot,
    retention_sweep,
    two_models,
    window_sweep,
)
from tests.figures.step_frames import FRAMES as STEPS

FRAMES = {
    "released_choices": released_choices,
    "retention_sweep": retention_sweep,
    "budget_ranking_retention_pilot": pilot,
    "decode_latency": beside_record,
    "component_ablation": ablation,
    "kept_maps": kept_maps,
    "memory_breakdown": memory_breakdown,
    "merge_maps": merge_maps,
    "single_layer_sweep": layer_sweep,
    "window_sweep": window_sweep,
    "schedule_cost": schedule_cost,
    "every_method": every_method,
    "all_combinations": all_combinations,
    "evictors_on_video": evictors_on_video,
    "window_schedules": window_schedules,
    "pruning_against_eviction": pruning_against_eviction,
    **PROBING,
    **STEPS,
}
"""Constructed frames by study, where a claim is judged on numbers that no rule of thumb gives."""


BY_OPTIONS = {
    "prefill_methods": prefill_methods,
    "evictors_compared": evictors_compared,
    "request_times": request_times,
}
"""The same, from what an artefact's study is called with."""


BY_ID = {"T-F6": by_length, "X-9": lambda: two_models({}, {"tgv": 0.5})}
"""The same, where an artefact needs other questions than those that share its study."""


def frame_of(one: Artefact) -> pd.DataFrame:
    """A small frame of an artefact: a constructed one, or what its study returns of a model that
    answers by rule."""
    study = study_of(one)
    if one.id in BY_ID:
        return BY_ID[one.id]()
    if study.name in FRAMES:
        return FRAMES[study.name]()
    if study.name in BY_OPTIONS:
        return BY_OPTIONS[study.name](**one.options)
    if not study.needs_model:
        return study.run(**one.options)
    quiet = {"samples": 12, "progress": False}
    settings = {name: value for name, value in quiet.items() if name in study.parameters}
    return study.run(FakeVLM(_answer), **{**settings, **one.options})


def _answer(request: Request, compressor: Compressor | None) -> str:
    """Words that are right now and then: more often where nothing is compressed."""
    words = ("yes", "no", "red", "two") if compressor is None else ("yes", "red blue circle")
    return words[len(request.question) % len(words)]
