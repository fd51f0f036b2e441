"""Frames on which claims of the tables of methods and of one run hold, fail, or can't be told."""

from __future__ import annotations

import pandas as pd

from figures.verdicts import Outcome
from tests.figures import cost_frames, map_frames, method_frames
from tests.figures.step_frames import ranked_entries, stage_plan, window_steps

HOLDS, FAILS = Outcome.HOLDS, Outcome.FAILS
HALF, OPEN = Outcome.UNDECIDED, Outcome.UNTESTABLE
FIVE = ("fastv", "tofu", "pitome", "tome", "lightkv")
FOUR = ("fastv", "tome", "pitome", "tofu", "lightkv")
CAPTIONED = (*method_frames.COMPARED, "tgvkv")
VISION = ("aircache", "tgvkv-vision-only")
ALIKE = ("tome", "pitome", "tofu", "fastv", "hired", "lightkv")


def without(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    return frame[~frame["compared"].isin(names)]


def captions(**scores: float) -> pd.DataFrame:
    return method_frames.evictors_compared(
        retentions=(0.5, 0.1), tasks=("embedded/caption",), **scores
    )


def two(**scores: float) -> pd.DataFrame:
    return method_frames.prefill_methods((0.6, 0.55), FIVE, **scores)


def free(*, encoder: bool = False, **scores: float) -> pd.DataFrame:
    return method_frames.prefill_methods((0.55,), ("fastv", "lightkv"), encoder=encoder, **scores)


def low(**scores: float) -> pd.DataFrame:
    return method_frames.prefill_methods((0.55, 0.4, 0.3), FOUR, **scores)


CASES: dict[tuple[str, int], list[tuple[Outcome, pd.DataFrame]]] = {
    ("L-T1", 0): [
        (HOLDS, method_frames.prefill_methods(lightkv=0.95)),
        (FAILS, method_frames.prefill_methods(lightkv=0.7)),
        (HALF, method_frames.prefill_methods(lightkv=0.93)),
    ],
    ("L-T1", 1): [
        (HOLDS, method_frames.prefill_methods()),
        (FAILS, method_frames.prefill_methods(lightkv=0.4)),
        (FAILS, method_frames.prefill_methods(**dict.fromkeys(ALIKE, 0.75))),
        (OPEN, method_frames.prefill_methods(**dict.fromkeys(ALIKE, 0.9))),
    ],
    ("L-T1", 2): [
        (HOLDS, method_frames.prefill_methods()),
        (FAILS, method_frames.prefill_methods(fastv=0.95, lightkv=0.6)),
        (OPEN, without(method_frames.prefill_methods(), "fastv", "hired")),
    ],
    ("L-T1", 3): [
        (HOLDS, method_frames.prefill_methods(tome_cache=0.3)),
        (FAILS, method_frames.prefill_methods(random=0.9)),
        (OPEN, method_frames.prefill_methods().query("task == 'embedded/exist'")),
    ],
    ("L-T1", 4): [(HOLDS, method_frames.prefill_methods())],
    ("L-T2", 0): [(HOLDS, two(lightkv=0.95)), (FAILS, two(lightkv=0.6))],
    ("L-T2", 1): [(HOLDS, two()), (FAILS, two(tofu=0.95, lightkv=0.6))],
    ("L-T3", 0): [
        (HOLDS, free(lightkv=0.94)),
        (FAILS, free(lightkv=0.8)),
        (HALF, free(lightkv=0.91)),
        (OPEN, free(lightkv=0.94, encoder=True)),
    ],
    ("L-T3", 1): [
        (HOLDS, free()),
        (FAILS, free(fastv=0.9, lightkv=0.7)),
        (OPEN, free(encoder=True)),
        (OPEN, without(free(), "fastv")),
    ],
    ("L-T7", 0): [
        (HOLDS, method_frames.prefill_methods((0.55,), FOUR)),
        (FAILS, method_frames.prefill_methods((0.55,), FOUR, tome=0.95, lightkv=0.6)),
        (
            OPEN,
            method_frames.prefill_methods((0.55,), ("tome", "lightkv"), tome=0.92, lightkv=0.94),
        ),
    ],
    ("L-T8", 0): [
        (HOLDS, method_frames.prefill_methods((0.55, 0.4), ("lightkv",), lightkv=0.95)),
        (FAILS, method_frames.prefill_methods((0.55, 0.4), ("lightkv",), lightkv=0.6)),
    ],
    ("L-F4", 0): [
        (HOLDS, low()),
        (FAILS, low(pitome=0.95, lightkv=0.6)),
        (OPEN, low().query("share > 0.5")),
    ],
    ("L-T9", 0): [
        (HOLDS, method_frames.window_schedules()),
        (FAILS, method_frames.window_schedules(wide=0.5)),
        (HALF, method_frames.window_schedules(wide=0.86)),
        (OPEN, method_frames.window_schedules().query("windows != '6,4,2'")),
    ],
    ("L-T9", 1): [
        (HOLDS, method_frames.window_schedules()),
        (FAILS, method_frames.window_schedules(narrow=0.6)),
    ],
    ("T-T2", 0): [
        (HOLDS, method_frames.evictors_compared()),
        (FAILS, method_frames.evictors_compared(snapkv=0.92, tgvkv=0.5)),
        (OPEN, without(method_frames.evictors_compared(), "tgvkv")),
    ],
    ("T-T2", 1): [
        (HOLDS, method_frames.evictors_compared()),
        (FAILS, method_frames.evictors_compared(h2o=0.92, tgvkv=0.5)),
    ],
    ("T-T2", 2): [
        (HOLDS, method_frames.evictors_compared(tgvkv=0.92)),
        (FAILS, method_frames.evictors_compared(tgvkv=0.6)),
    ],
    ("T-T3", 0): [(HOLDS, captions()), (FAILS, captions(snapkv=0.92, tgvkv=0.5))],
    ("T-T3", 1): [(HOLDS, captions(tgvkv=0.92)), (FAILS, captions(tgvkv=0.5))],
    ("T-T6", 0): [
        (HOLDS, method_frames.pruning_against_eviction()),
        (FAILS, method_frames.pruning_against_eviction(cdpruner=0.95, tgvkv=0.5)),
        (OPEN, without(method_frames.pruning_against_eviction(), "tgvkv")),
    ],
    ("T-T7", 0): [
        (HOLDS, captions()),
        (FAILS, captions(snapkv=0.92, tgvkv=0.5)),
        (FAILS, captions(snapkv=0.75, tgvkv=0.75)),
        (OPEN, captions(**dict.fromkeys(CAPTIONED, 0.9))),
        (OPEN, without(captions(), "tgvkv")),
    ],
    ("L-F2", 0): [
        (HOLDS, window_steps()),
        (FAILS, window_steps(far=True)),
        (FAILS, window_steps(count=1)),
        (FAILS, window_steps(count=3)),
    ],
    ("L-F2", 1): [(HOLDS, window_steps()), (FAILS, window_steps(alike=True))],
    ("L-F5", 0): [
        (HOLDS, stage_plan()),
        (FAILS, stage_plan(late=1)),
        (FAILS, stage_plan(cached=1)),
    ],
    ("L-F5", 1): [
        (HOLDS, stage_plan()),
        (FAILS, stage_plan(read=(2,))),
        (FAILS, stage_plan(read=(1, 2, 4))),
    ],
    ("T-F3", 0): [
        (HOLDS, ranked_entries()),
        (HOLDS, ranked_entries(steep=0.01)),
        (FAILS, ranked_entries(steep=0.1)),
    ],
    ("T-F3", 1): [(HOLDS, ranked_entries()), (FAILS, ranked_entries(worst=True))],
    ("T-F3", 2): [(HOLDS, ranked_entries()), (FAILS, ranked_entries(words=False))],
    ("L-T4", 0): [
        (HOLDS, cost_frames.request_times()),
        (FAILS, cost_frames.request_times(light=0.81)),
        (HALF, cost_frames.request_times(last=0.1)),
        (OPEN, cost_frames.request_times(methods=("vanilla",))),
        (OPEN, cost_frames.request_times(("llava-1.5-7b",))),
    ],
    ("L-T10", 0): [
        (HOLDS, cost_frames.request_times(light=0.99)),
        (FAILS, cost_frames.request_times(light=1.01)),
        (HALF, cost_frames.request_times(last=0.3)),
    ],
    ("L-T10", 1): [
        (HOLDS, cost_frames.request_times(light=0.77)),
        (FAILS, cost_frames.request_times(light=0.79)),
        (FAILS, cost_frames.request_times(light=0.7)),
    ],
    ("X-7", 0): [
        (HOLDS, method_frames.released_choices()),
        (FAILS, method_frames.released_choices(light=0.6)),
        (HALF, method_frames.released_choices(light=0.76)),
        (OPEN, method_frames.released_choices(light=0.95, paper=0.95)),
        (OPEN, method_frames.released_choices(light=0.05, paper=0.05)),
        (OPEN, method_frames.released_choices().query("departure != 'all'")),
    ],
    ("X-7", 1): [
        (HOLDS, method_frames.released_choices()),
        (FAILS, method_frames.released_choices(tgv=0.6)),
        (OPEN, method_frames.released_choices(tgv=0.95, paper=0.95)),
    ],
    ("X-7", 2): [
        (HOLDS, method_frames.released_choices()),
        (FAILS, method_frames.released_choices(random=0.9)),
        (OPEN, method_frames.released_choices(random=0.95, paper=0.95)),
        (OPEN, method_frames.released_choices().query("departure != 'guidance'")),
    ],
    ("X-8", 0): [
        (HOLDS, method_frames.all_combinations()),
        (FAILS, method_frames.all_combinations(windows=-0.1)),
        (OPEN, method_frames.all_combinations().query("compared != 'lightkv'")),
    ],
    ("X-8", 1): [
        (HOLDS, method_frames.all_combinations()),
        (FAILS, method_frames.all_combinations(guidance=0.05, pairing=0.3)),
        (OPEN, method_frames.all_combinations().query("compared != 'lightkv'")),
    ],
    ("X-8", 2): [
        (HOLDS, method_frames.all_combinations()),
        (FAILS, method_frames.all_combinations(tpr=-0.1)),
        (OPEN, method_frames.all_combinations().query("compared != 'tgvkv'")),
    ],
    ("X-8", 3): [
        (HOLDS, method_frames.all_combinations()),
        (FAILS, method_frames.all_combinations(twr=0.1, tvb=0.4)),
        (OPEN, method_frames.all_combinations().query("compared != 'tgvkv'")),
    ],
    ("T-F8", 0): [(HOLDS, map_frames.kept_maps(12, 6)), (FAILS, map_frames.kept_maps(6, 12))],
    ("T-F8", 1): [(HOLDS, map_frames.kept_maps()), (FAILS, map_frames.kept_maps(whole_text=False))],
    ("T-F4", 0): [
        (HOLDS, method_frames.evictors_on_video()),
        (FAILS, method_frames.evictors_on_video(snapkv=0.92, tgvkv=0.6)),
        (OPEN, without(method_frames.evictors_on_video(), "tgvkv")),
    ],
    ("T-T9", 0): [
        (HOLDS, method_frames.evictors_on_video(tgvkv=0.92)),
        (FAILS, method_frames.evictors_on_video(tgvkv=0.6)),
        (HALF, method_frames.evictors_on_video(tgvkv=0.86)),
    ],
    ("T-T9", 1): [
        (HOLDS, method_frames.evictors_on_video()),
        (FAILS, method_frames.evictors_on_video(h2o=0.9, tgvkv=0.5)),
        (OPEN, method_frames.evictors_on_video().query("retention != 0.1")),
    ],
    ("T-F6", 0): [
        (HOLDS, method_frames.by_length(tgvkv=0.92)),
        (FAILS, method_frames.by_length(tgvkv=0.5)),
        (FAILS, method_frames.by_length(0.5, tgvkv=0.92)),
        (HALF, method_frames.by_length(0.84, tgvkv=0.92)),
    ],
    ("T-T8", 0): [
        (HOLDS, method_frames.evictors_compared(VISION)),
        (FAILS, method_frames.evictors_compared(VISION, aircache=0.92, tgvkv_vision_only=0.5)),
    ],
}
