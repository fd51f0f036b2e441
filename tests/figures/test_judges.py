"""Every claim's judge finds what holds and what does not, and knows what it can't tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.artefacts import artefact, artefacts
from figures.artefacts.pictures import patch_means, pixels
from figures.verdicts import Outcome
from tests.figures import frames as f
from tests.figures.probing_cases import CASES as PROBING
from tests.figures.table_cases import CASES as TABLES

HOLDS, FAILS = Outcome.HOLDS, Outcome.FAILS
HALF, OPEN = Outcome.UNDECIDED, Outcome.UNTESTABLE
FULL, TWR = (True, True, True), (False, True, False)


def left_34() -> pd.DataFrame:
    """Merge maps after whose last stage 34 of 256 tokens are left, as 77 of 576."""
    frame = f.merge_maps()
    for row, col in ((1, 1), (5, 5)):
        alone = (frame["stage"] == 3) & (frame["row"] == row) & (frame["col"] == col)
        frame.loc[alone, ["target_row", "target_col"]] = row, col
    return frame


def unlike() -> pd.DataFrame:
    """Merge maps whose tokens each span all brightnesses of the picture."""
    frame = f.merge_maps()
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
    return pd.concat([f.layer_sweep((score, 0.8), task) for task, score in tasks])


def no_tight_budget() -> pd.DataFrame:
    frame = f.decode_latency()
    return frame[frame["retention"] != 0.05]


GPU = {"context": 16000, "device": "cuda"}
CASES: dict[tuple[str, int], list[tuple[Outcome, pd.DataFrame]]] = {
    ("X-1", 0): [
        (HOLDS, f.retention_sweep(light=0.9)),
        (FAILS, f.retention_sweep(light=0.5)),
        (HALF, f.retention_sweep(light=0.88)),
    ],
    ("X-1", 1): [
        (HOLDS, f.retention_sweep(tgv=0.9)),
        (FAILS, f.retention_sweep(tgv=0.5)),
        (HALF, f.retention_sweep(tgv=0.87)),
    ],
    ("X-1", 2): [
        (HOLDS, f.retention_sweep(tgv=0.7, random=0.2)),
        (FAILS, f.retention_sweep(tgv=0.2, random=0.7)),
        (FAILS, f.retention_sweep(tgv=0.5, random=0.5)),
    ],
    ("X-1", 3): [
        (HOLDS, f.retention_sweep(random=0.1)),
        (FAILS, f.retention_sweep(random=0.9)),
        (HALF, f.retention_sweep(random=0.45)),
    ],
    ("T-T1", 0): [
        (HOLDS, f.pilot({("a", "TV"): 0.9})),
        (FAILS, f.pilot({("a", "TV"): 0.2})),
        (FAILS, f.pilot()),
    ],
    ("T-T1", 1): [
        (HOLDS, f.pilot({("b", "TV+TT"): 0.9})),
        (FAILS, f.pilot({("b", "TV+TT"): 0.2})),
        (FAILS, f.pilot()),
    ],
    ("T-T1", 2): [
        (HOLDS, f.pilot({("b", "TV+TT"): 0.9})),
        (FAILS, f.pilot({("b", "TV+TT"): 0.2})),
        (FAILS, f.pilot()),
    ],
    ("T-T1", 3): [
        (HOLDS, f.pilot({("b", "observation-window"): 0.1})),
        (FAILS, f.pilot({("b", "observation-window"): 0.85})),
        (HALF, f.pilot({("b", "observation-window"): 0.45})),
    ],
    ("T-T1", 4): [
        (HOLDS, f.pilot({("c", "text"): 0.1})),
        (FAILS, f.pilot({("c", "text"): 0.85})),
        (HALF, f.pilot({("c", "text"): 0.45})),
    ],
    ("T-T1", 5): [
        (HOLDS, f.pilot({("c", "vision"): 0.85})),
        (FAILS, f.pilot({("c", "vision"): 0.1})),
        (HALF, f.pilot({("c", "vision"): 0.45})),
    ],
    ("T-T5", 0): [
        (HOLDS, f.ablation({TWR: 0.9})),
        (FAILS, f.ablation({TWR: 0.2})),
        (FAILS, f.ablation()),
    ],
    ("T-T5", 1): [
        (HOLDS, f.ablation({FULL: 0.9})),
        (FAILS, f.ablation({FULL: 0.2})),
        (FAILS, f.ablation()),
    ],
    ("T-T5", 2): [
        (HOLDS, f.ablation({FULL: 0.9})),
        (FAILS, f.ablation({FULL: 0.2})),
        (FAILS, f.ablation()),
    ],
    ("T-T5", 3): [
        (HOLDS, f.ablation({FULL: 0.9})),
        (FAILS, f.ablation({FULL: 0.2})),
        (HALF, f.ablation({FULL: 0.56}, questions=24)),
    ],
    ("T-F5", 0): [
        (HOLDS, f.kept_maps(12, 6)),
        (FAILS, f.kept_maps(6, 12)),
        (HALF, f.kept_maps(pictures=5)),
    ],
    ("T-F5", 1): [(HOLDS, f.kept_maps()), (FAILS, f.kept_maps(whole_text=False))],
    ("T-T4", 0): [
        (HOLDS, f.decode_latency()),
        (FAILS, f.decode_latency(held=0.2)),
        (OPEN, no_tight_budget()),
    ],
    ("T-T4", 1): [
        (HOLDS, f.decode_latency(step=1.5, **GPU)),  # type: ignore[arg-type]
        (FAILS, f.decode_latency(step=3.8, **GPU)),  # type: ignore[arg-type]
        (OPEN, f.decode_latency()),
    ],
    ("T-T4", 2): [
        (HOLDS, f.decode_latency(throughput=320.0, **GPU)),  # type: ignore[arg-type]
        (FAILS, f.decode_latency(throughput=210.0, **GPU)),  # type: ignore[arg-type]
        (OPEN, f.decode_latency()),
    ],
    ("L-F1", 0): [(HOLDS, f.memory_breakdown()), (FAILS, f.memory_breakdown(vision=0.02))],
    ("L-F1", 1): [(HOLDS, f.memory_breakdown(0.5)), (FAILS, f.memory_breakdown(0.58))],
    ("L-F3", 0): [
        (HOLDS, f.merge_maps()),
        (FAILS, f.merge_maps(windows=(2, 2, 2))),
        (OPEN, f.merge_maps(windows=(4,))),
    ],
    ("L-F6", 0): [
        (HOLDS, f.layer_sweep()),
        (FAILS, f.layer_sweep((0.8, 0.7, 0.5, 0.3))),
        (FAILS, f.layer_sweep((0.5, 0.5))),
    ],
    ("L-F6", 1): [
        (HOLDS, two_tasks(0.2, 0.8)),
        (FAILS, two_tasks(0.8, 0.2)),
        (OPEN, f.layer_sweep()),
    ],
    ("L-F7", 0): [(HOLDS, left_34()), (FAILS, f.merge_maps())],
    ("L-F7", 1): [
        (HOLDS, f.merge_maps()),
        (FAILS, unlike()),
        (HALF, f.merge_maps(pictures=4)),
    ],
    ("L-T5", 0): [
        (HOLDS, f.window_sweep((0.3, 0.7, 0.6))),
        (FAILS, f.window_sweep((0.6, 0.3, 0.2))),
        (FAILS, f.window_sweep((0.5, 0.5, 0.5))),
    ],
    ("L-T5", 1): [
        (HOLDS, f.window_sweep((0.3, 0.8, 0.3))),
        (FAILS, f.window_sweep((0.3, 0.3, 0.8))),
        (HALF, f.window_sweep((0.3, 0.6, 0.56))),
    ],
    ("L-T5", 2): [
        (HOLDS, f.window_sweep()),
        (FAILS, f.window_sweep(deep=(0.8, 0.2, 0.2))),
        (HALF, f.window_sweep(deep=(0.8, 0.75, 0.75))),
    ],
    ("L-T6", 0): [(HOLDS, f.schedule_cost()), (FAILS, f.schedule_cost(factor=1.2))],
    ("L-T6", 1): [(HOLDS, f.schedule_cost()), (FAILS, f.schedule_cost(late=0.5))],
    ("L-T6", 2): [(HOLDS, f.schedule_cost(wide=0.9)), (FAILS, f.schedule_cost())],
    **PROBING,
    **TABLES,
    ("X-6", 0): [(HOLDS, f.every_method()), (FAILS, f.every_method(tgvkv=0.2))],
    ("X-6", 1): [(HOLDS, f.every_method()), (FAILS, f.every_method(random=0.95))],
    ("X-6", 2): [
        (HOLDS, f.every_method(downsample=0.1)),
        (FAILS, f.every_method(downsample=0.95)),
        (OPEN, f.every_method()),
    ],
    ("X-6", 3): [(HOLDS, f.every_method()), (FAILS, f.every_method(reversed_later=True))],
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
    verdict = artefact("L-T1").judge(f.prefill_methods())[4].verdict
    assert verdict.outcome is FAILS and "lightkv flops: +11" in verdict.reason


def test_every_claim_is_tried_both_ways() -> None:
    for one in artefacts():
        for number in range(len(one.claims) if not one.missing else 0):
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


def test_nothing_measured_is_not_testable() -> None:
    for one in artefacts():
        empty = f.frame_of(one).iloc[:0]
        assert all(judged.verdict.outcome is OPEN for judged in one.judge(empty))
