"""Latency: what is counted, in which order, and what is refused."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch

from analysis.tasks import task
from analysis.timing import latency
from analysis.timing.latency import LatencySettings, lengthened, measure_latency, summarise_latency
from lightkv import TGVKV, VLM, LightKV
from lightkv.errors import InvalidValueError
from tests.analysis.fake import FakeVLM, record
from tests.closeness import assert_close


class Timed(FakeVLM):
    """Generates by a clock of its own: 50 ms for the prefill, 10 ms a step."""

    def generate(self, inputs: Any, compressor: Any = None, **settings: Any) -> Any:
        self.batches.append([repr(compressor)])
        (watch,) = settings["stopping_criteria"]
        for step in range(settings["max_new_tokens"]):
            CLOCK.seconds += 0.01 if step else 0.05
            stop = watch(torch.zeros(2, 3), None)
            assert stop.tolist() == [False, False]
        CLOCK.seconds += 0.01
        self.records = [record(1.0 if compressor is None else 0.5, None)]
        return self


class Clock:
    seconds = 0.0


CLOCK = Clock()
METHODS = {"vanilla": None, "a": TGVKV(retention=0.5), "b": TGVKV(retention=0.2)}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    monkeypatch.setattr(latency, "now", lambda device: CLOCK.seconds)
    return Timed(lambda request, compressor: "")


def measured(vlm: Any, **changes: Any) -> pd.DataFrame:
    request = task("embedded/read").items(1, 0)[0].request()
    usual: dict[str, Any] = {"new_tokens": 6, "warmup": 1, "repeats": 3}
    return measure_latency(vlm, METHODS, request, LatencySettings(**{**usual, **changes}))


def test_prefill_and_steps_are_told_apart(timed: Timed) -> None:
    frame = measured(timed)
    assert_close(frame["ttft_ms"], [50.0] * 9)
    assert_close(frame["step_ms"], [10.0] * 9)
    assert_close(frame["throughput"], [6 / 0.11] * 9)
    assert frame["method"].tolist() == ["vanilla"] * 3 + ["a"] * 3 + ["b"] * 3
    assert frame["repeat"].tolist() == [0, 1, 2] * 3
    assert frame["kv_share"].tolist() == [1.0] * 3 + [0.5] * 6
    assert set(frame["memory_kind"]) == {latency.CPU_MEMORY}


def test_methods_are_interleaved_and_take_turns_to_start(timed: Timed) -> None:
    measured(timed)
    v, a, b = "None", repr(METHODS["a"]), repr(METHODS["b"])
    rounds = [v, a, b, a, b, v, b, v, a, v, a, b]
    # The last run of each measures memory and is not timed.
    assert [batch[0] for batch in timed.batches] == [*rounds, v, a, b]


def test_summary_gives_means_and_ratios() -> None:
    frame = pd.DataFrame(
        {
            "method": ["vanilla", "vanilla", "a", "a"],
            "ttft_ms": [10.0, 12.0, 5.0, 6.0],
            "step_ms": [4.0, 4.0, 2.0, 2.0],
            "throughput": [100.0, 100.0, 150.0, 150.0],
            "kv_share": [1.0, 1.0, 0.5, 0.5],
            "kv_bytes": [8, 8, 4, 4],
            "peak_bytes": [1, 1, 1, 1],
        }
    )
    summary = summarise_latency(frame).set_index("method")
    assert summary["ttft_ms_mean"]["vanilla"] == 11
    assert summary["ttft_ms_std"]["vanilla"] == pytest.approx(2**0.5)
    assert summary["ttft_ms_change"]["a"] == pytest.approx(-0.5)
    assert summary["step_ms_change"]["a"] == pytest.approx(-0.5)
    assert summary["throughput_change"]["a"] == pytest.approx(0.5)
    without = summarise_latency(frame[frame["method"] == "a"])
    assert without["step_ms_change"].isna().all()


@pytest.mark.parametrize(
    "wrong", [{"new_tokens": 1}, {"batch_size": 0}, {"warmup": -1}, {"repeats": 0}]
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        LatencySettings(**wrong)


def test_methods_are_checked_before_anything_runs(timed: Timed) -> None:
    request = task("embedded/read").items(1, 0)[0].request()
    for methods in ({}, {"a": None, "b": LightKV((9,), (1,), (0.5,))}):
        with pytest.raises(InvalidValueError):
            measure_latency(timed, methods, request)  # type: ignore[arg-type]
    assert timed.batches == []


def test_the_embedded_model_is_measured(embedded: VLM) -> None:
    request = task("embedded/read").items(1, 0)[0].request()
    methods = {"vanilla": None, "tgvkv": TGVKV(retention=0.05)}
    frame = measure_latency(
        embedded, methods, request, LatencySettings(3, batch_size=2, warmup=0, repeats=1)
    )
    assert (frame[["ttft_ms", "step_ms", "throughput"]] > 0).all(axis=None)
    assert (frame["peak_bytes"] >= 0).all()
    # Batch x layers x (key and value) x hidden x 4 bytes x tokens.
    assert frame["kv_bytes"][0] == 2 * 8 * 2 * 128 * 4 * frame["context"][0]
    assert_close(frame["kv_share"], [1, 0.05], 0.001)


def test_a_prompt_is_lengthened_to_at_least_what_is_wanted(embedded: VLM) -> None:
    request = task("embedded/read").items(1, 0)[0].request()
    longer = lengthened(embedded, request, 400)
    length = int(embedded.encode([longer])["input_ids"].shape[1])
    assert 400 <= length < 420
    assert lengthened(embedded, request, 10) is request
