"""Every claim's judge finds what holds and what does not, and knows what it can't tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.artefacts import artefact, artefacts
from figures.artefacts.pictures import patch_means, pixels
from figures.verdicts import Outcome
from tests.figures import cost_frames, frames, map_frames, method_frames, score_frames
from tests.figures.probing_cases import CASES as PROBING
from tests.figures.table_cases import CASES as TABLES

HOLDS, FAILS = Outcome.HOLDS, Outcome.FAILS
HALF, OPEN = Outcome.UNDECIDED, Outcome.UNTESTABLE
FULL, TWR = (True, True, True), (False, True, False)


def left_34() -> pd.DataFrame:
    """Merge maps after whose last stage 34 of 256 tokens are left, as 77 of 576."""
    frame = map_frames.merge_maps()
    for row, col in ((1, 1), (5, 5)):
        alone = (frame["stage"] == 3) & (frame["row"] == row) & (frame["col"] == col)
        frame.loc[alone, ["target_row", "target_col"]] = row, col
    return frame


def unlike() -> pd.DataFrame:
    """Merge maps whose tokens each span all brightnesses of the picture."""
    frame = map_frames.merge_maps()
    for item, merge_map in frame[frame["stage"] == 3].groupby("item"):
        bright = patch_means(pixels(merge_map, 16, 16)).mean(-1).ravel()
        group = bright.argsort().argsort() % 32
        target = np.array([np.flatnonzero(group == g)[0] for g in range(32)])[group]
        place = target[merge_map["row"].to_numpy() * 16 + merge_map["col"].to_numpy()]
        frame.loc[merge_map.index, "target_row"] = place // 16
        frame.loc[merge_map.index, "target_col"] = place % 16
        assert item is not None
    return frame


def two_tasks(vizwiz: float, other: float) -> pd.DataFrame:
    tasks = (("folder/vizwiz", vizwiz), ("folder/gqa", other))
    return pd.concat([score_frames.layer_sweep((score, 0.8), task) for task, score in tasks])


def no_tight_budget() -> pd.DataFrame:
    frame = cost_frames.decode_latency()
    return frame[frame["retention"] != 0.05]


GPU = {"context": 16000, "device": "cuda"}
CASES: dict[tuple[str, int], list[tuple[Outcome, pd.DataFrame]]] = {
    ("X-1", 0): [
        (HOLDS, score_frames.retention_sweep(light=0.9)),
        (FAILS, score_frames.retention_sweep(light=0.5)),
        (HALF, score_frames.retention_sweep(light=0.88)),
    ],
    ("X-1", 1): [
        (HOLDS, score_frames.retention_sweep(tgv=0.9)),
        (FAILS, score_frames.retention_sweep(tgv=0.5)),
        (HALF, score_frames.retention_sweep(tgv=0.87)),
    ],
    ("X-1", 2): [
        (HOLDS, score_frames.retention_sweep(tgv=0.7, random=0.2)),
        (FAILS, score_frames.retention_sweep(tgv=0.2, random=0.7)),
        (FAILS, score_frames.retention_sweep(tgv=0.5, random=0.5)),
    ],
    ("X-1", 3): [
        (HOLDS, score_frames.retention_sweep(random=0.1)),
        (FAILS, score_frames.retention_sweep(random=0.9)),
        (HALF, score_frames.retention_sweep(random=0.45)),
    ],
    ("X-9", 0): [
        (HOLDS, score_frames.two_models({"light": 0.92}, {"light": 0.92})),
        (HOLDS, score_frames.two_models({"light": 0.5}, {"light": 0.6})),
        (FAILS, score_frames.two_models({"light": 0.92}, {"light": 0.5})),
        (HALF, score_frames.two_models({"light": 0.92}, {"light": 0.88})),
        (OPEN, score_frames.retention_sweep()),
    ],
    ("X-9", 1): [
        (HOLDS, score_frames.two_models({"tgv": 0.9}, {"tgv": 0.9})),
        (FAILS, score_frames.two_models({"tgv": 0.5}, {"tgv": 0.9})),
    ],
    ("X-9", 2): [
        (HOLDS, score_frames.two_models({"random": 0.2}, {"random": 0.3})),
        (FAILS, score_frames.two_models({"random": 0.2}, {"tgv": 0.2, "random": 0.7})),
    ],
    ("X-9", 3): [
        (HOLDS, score_frames.two_models({"random": 0.1}, {"random": 0.1})),
        (FAILS, score_frames.two_models({"random": 0.1}, {"random": 0.9})),
    ],
    ("X-9", 4): [
        (HOLDS, score_frames.two_models({}, {"tgv": 0.6})),
        (FAILS, score_frames.two_models({}, {"light": 0.1, "random": 0.9})),
        (OPEN, score_frames.retention_sweep()),
    ],
    ("T-T1", 0): [
        (HOLDS, score_frames.pilot({("a", "TV"): 0.9})),
        (FAILS, score_frames.pilot({("a", "TV"): 0.2})),
        (FAILS, score_frames.pilot()),
    ],
    ("T-T1", 1): [
        (HOLDS, score_frames.pilot({("b", "TV+TT"): 0.9})),
        (FAILS, score_frames.pilot({("b", "TV+TT"): 0.2})),
        (FAILS, score_frames.pilot()),
    ],
    ("T-T1", 2): [
        (HOLDS, score_frames.pilot({("b", "TV+TT"): 0.9})),
        (FAILS, score_frames.pilot({("b", "TV+TT"): 0.2})),
        (FAILS, score_frames.pilot()),
    ],
    ("T-T1", 3): [
        (HOLDS, score_frames.pilot({("b", "observation-window"): 0.1})),
        (FAILS, score_frames.pilot({("b", "observation-window"): 0.85})),
        (HALF, score_frames.pilot({("b", "observation-window"): 0.45})),
    ],
    ("T-T1", 4): [
        (HOLDS, score_frames.pilot({("c", "text"): 0.1})),
        (FAILS, score_frames.pilot({("c", "text"): 0.85})),
        (HALF, score_frames.pilot({("c", "text"): 0.45})),
    ],
    ("T-T1", 5): [
        (HOLDS, score_frames.pilot({("c", "vision"): 0.85})),
        (FAILS, score_frames.pilot({("c", "vision"): 0.1})),
        (HALF, score_frames.pilot({("c", "vision"): 0.45})),
    ],
    ("T-T5", 0): [
        (HOLDS, score_frames.ablation({TWR: 0.9})),
        (FAILS, score_frames.ablation({TWR: 0.2})),
        (FAILS, score_frames.ablation()),
    ],
    ("T-T5", 1): [
        (HOLDS, score_frames.ablation({FULL: 0.9})),
        (FAILS, score_frames.ablation({FULL: 0.2})),
        (FAILS, score_frames.ablation()),
    ],
    ("T-T5", 2): [
        (HOLDS, score_frames.ablation({FULL: 0.9})),
        (FAILS, score_frames.ablation({FULL: 0.2})),
        (FAILS, score_frames.ablation()),
    ],
    ("T-T5", 3): [
        (HOLDS, score_frames.ablation({FULL: 0.9})),
        (FAILS, score_frames.ablation({FULL: 0.2})),
        (HALF, score_frames.ablation({FULL: 0.56}, questions=24)),
    ],
    ("T-F5", 0): [
        (HOLDS, map_frames.kept_maps(12, 6)),
        (FAILS, map_frames.kept_maps(6, 12)),
        (HALF, map_frames.kept_maps(pictures=5)),
    ],
    ("T-F5", 1): [(HOLDS, map_frames.kept_maps()), (FAILS, map_frames.kept_maps(whole_text=False))],
    ("T-T4", 0): [
        (HOLDS, cost_frames.decode_latency()),
        (FAILS, cost_frames.decode_latency(held=0.2)),
        (OPEN, no_tight_budget()),
    ],
    ("T-T4", 1): [
        (HOLDS, cost_frames.decode_latency(step=2.35, **GPU)),  # type: ignore[arg-type]
        (FAILS, cost_frames.decode_latency(step=2.37, **GPU)),  # type: ignore[arg-type]
        (OPEN, cost_frames.decode_latency()),
        (OPEN, cost_frames.beside_record()),
        (OPEN, cost_frames.beside_record(16000, "cpu")),
        (OPEN, cost_frames.beside_record(15999)),
        (HOLDS, cost_frames.beside_record(16000, step=2.35)),
        (FAILS, cost_frames.beside_record(16000, step=2.37)),
        (HALF, cost_frames.beside_record(16000, step=2.35, last=0.1)),
    ],
    ("T-T4", 2): [
        (HOLDS, cost_frames.decode_latency(throughput=286.0, **GPU)),  # type: ignore[arg-type]
        (FAILS, cost_frames.decode_latency(throughput=285.0, **GPU)),  # type: ignore[arg-type]
        (OPEN, cost_frames.decode_latency()),
        (HOLDS, cost_frames.beside_record(16000, throughput=286.0)),
        (FAILS, cost_frames.beside_record(16000, throughput=285.0)),
    ],
    ("L-F1", 0): [
        (HOLDS, cost_frames.memory_breakdown()),
        (FAILS, cost_frames.memory_breakdown(vision=0.02)),
    ],
    ("L-F1", 1): [
        (HOLDS, cost_frames.memory_breakdown(0.5)),
        (FAILS, cost_frames.memory_breakdown(0.58)),
    ],
    ("L-F3", 0): [
        (HOLDS, map_frames.merge_maps()),
        (FAILS, map_frames.merge_maps(windows=(2, 2, 2))),
        (OPEN, map_frames.merge_maps(windows=(4,))),
    ],
    ("L-F6", 0): [
        (HOLDS, score_frames.layer_sweep()),
        (FAILS, score_frames.layer_sweep((0.8, 0.7, 0.5, 0.3))),
        (FAILS, score_frames.layer_sweep((0.5, 0.5))),
    ],
    ("L-F6", 1): [
        (HOLDS, two_tasks(0.2, 0.8)),
        (FAILS, two_tasks(0.8, 0.2)),
        (OPEN, score_frames.layer_sweep()),
    ],
    ("L-F7", 0): [(HOLDS, left_34()), (FAILS, map_frames.merge_maps())],
    ("L-F7", 1): [
        (HOLDS, map_frames.merge_maps()),
        (FAILS, unlike()),
        (HALF, map_frames.merge_maps(pictures=4)),
    ],
    ("L-T5", 0): [
        (HOLDS, score_frames.window_sweep((0.3, 0.7, 0.6))),
        (FAILS, score_frames.window_sweep((0.6, 0.3, 0.2))),
        (FAILS, score_frames.window_sweep((0.5, 0.5, 0.5))),
    ],
    ("L-T5", 1): [
        (HOLDS, score_frames.window_sweep((0.3, 0.8, 0.3))),
        (FAILS, score_frames.window_sweep((0.3, 0.3, 0.8))),
        (HALF, score_frames.window_sweep((0.3, 0.6, 0.56))),
    ],
    ("L-T5", 2): [
        (HOLDS, score_frames.window_sweep()),
        (FAILS, score_frames.window_sweep(deep=(0.8, 0.2, 0.2))),
        (HALF, score_frames.window_sweep(deep=(0.8, 0.75, 0.75))),
    ],
    ("L-T6", 0): [
        (HOLDS, cost_frames.schedule_cost()),
        (FAILS, cost_frames.schedule_cost(factor=1.2)),
    ],
    ("L-T6", 1): [
        (HOLDS, cost_frames.schedule_cost()),
        (FAILS, cost_frames.schedule_cost(late=0.5)),
    ],
    ("L-T6", 2): [
        (HOLDS, cost_frames.schedule_cost(wide=0.9)),
        (FAILS, cost_frames.schedule_cost()),
    ],
    **PROBING,
    **TABLES,
    ("X-6", 0): [
        (HOLDS, method_frames.every_method()),
        (FAILS, method_frames.every_method(tgvkv=0.2)),
    ],
    ("X-6", 1): [
        (HOLDS, method_frames.every_method()),
        (FAILS, method_frames.every_method(random=0.95)),
    ],
    ("X-6", 2): [
        (HOLDS, method_frames.every_method(downsample=0.1)),
        (FAILS, method_frames.every_method(downsample=0.95)),
        (OPEN, method_frames.every_method()),
    ],
    ("X-6", 3): [
        (HOLDS, method_frames.every_method()),
        (FAILS, method_frames.every_method(reversed_later=True)),
    ],
}


COMPUTED = {("L-T1", 4)}
"""Claims on what follows from dimensions alone, whatever the frame; tried by a test of their own.
"""


def test_the_cost_of_table_1_fails_if_it_is_counted_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from figures.artefacts import prefill_claims

    real = prefill_claims.cost
    monkeypatch.setattr(prefill_claims, "cost", lambda *at: tuple(1.06 * x for x in real(*at)))
    verdict = artefact("L-T1").judge(method_frames.prefill_methods())[4].verdict
    assert verdict.outcome is FAILS and "lightkv flops: +11" in verdict.reason


def test_every_claim_is_tried_both_ways() -> None:
    for one in artefacts():
        for number in range(len(one.claims)):
            outcomes = {outcome for outcome, _ in CASES[one.id, number]}
            if (one.id, number) in COMPUTED:
                outcomes.add(FAILS)
            assert {HOLDS, FAILS} <= outcomes, (one.id, number)


@pytest.mark.parametrize(
    ("key", "expected", "frame"),
    [
        pytest.param(key, outcome, frame, id=f"{key[0]}-{key[1]}-{outcome.name.lower()}")
        for key, cases in CASES.items()
        for outcome, frame in cases
    ],
)
def test_judge(key: tuple[str, int], expected: Outcome, frame: pd.DataFrame) -> None:
    verdict = artefact(key[0]).judge(frame)[key[1]].verdict
    assert verdict.outcome is expected, verdict.reason
    assert verdict.reason
    if expected is HALF and verdict.p is not None:
        assert "questions would decide it" in verdict.reason or "are needed" in verdict.reason


def test_nothing_measured_is_not_testable() -> None:
    for one in artefacts():
        empty = frames.frame_of(one).iloc[:0]
        assert all(judged.verdict.outcome is OPEN for judged in one.judge(empty))
