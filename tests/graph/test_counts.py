"""What the graph adds to a model, in kernels launched and places where the host waits.

Both are exact and the same on every machine, unlike times, and so are calls of functions, which a
GPU's host has to make before it can launch anything. The bounds are those that were reached, with a
little room. Measured on 32 layers, beyond what the model does by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import nnsight
import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.catalogue import compressor
from lightkv.contract.compressor import Compressor
from tests.counting import Count, calls_of, counted
from tests.tiny import prompt, stack, tiny_llava

LAYERS = 32
STEPS = 8
BATCHES = {
    "one": [prompt(1, 7)],
    "padded": [prompt(1, 5), prompt(1, 9, seed=1), prompt(1, 7, seed=2)],
}


@pytest.fixture(scope="module")
def deep() -> Iterator[VLM]:
    vlm = tiny_llava(layers=LAYERS)
    # Tensors that a process makes once count for no method, whichever test runs first.
    vlm.generate(stack(BATCHES["padded"]), compressor("lightkv", vlm.facts), max_new_tokens=1)
    yield vlm


class Counts:
    """Counts of a method: of its prefill, and of one step, per layer and beyond the model's."""

    def __init__(self, vlm: VLM, inputs: dict[str, Tensor], method: Compressor | None) -> None:
        self.prefill = _count(vlm, inputs, method, 1) - _count(vlm, inputs, None, 1)
        whole = _count(vlm, inputs, method, STEPS + 1) - _count(vlm, inputs, None, STEPS + 1)
        self.steps = whole - self.prefill

    @property
    def prefill_kernels(self) -> float:
        return self.prefill.launches / LAYERS

    @property
    def prefill_waits(self) -> float:
        return self.prefill.syncs / LAYERS

    @property
    def step_kernels(self) -> float:
        return self.steps.launches / LAYERS / STEPS

    @property
    def step_waits(self) -> float:
        return self.steps.syncs / LAYERS / STEPS


def _count(vlm: VLM, inputs: dict[str, Tensor], method: Compressor | None, tokens: int) -> Count:
    with counted() as count:
        vlm.generate(dict(inputs), method, max_new_tokens=tokens, do_sample=False)
    return count


def counts(vlm: VLM, batch: str, text: str) -> Counts:
    return Counts(vlm, stack(BATCHES[batch]), compressor(text, vlm.facts))


# Per layer: kernels and waits.
PREFILLS = [
    ("tgvkv:retention=0.3", {"one": (10.4, 0.5), "padded": (11.5, 0.5)}),
    ("snapkv:retention=0.3", {"one": (10.1, 0.2), "padded": (11.3, 0.2)}),
    ("cake:retention=0.3;window=4", {"one": (13.1, 0.25), "padded": (14.4, 0.25)}),
    ("key-norm:retention=0.3", {"one": (7.5, 0.16), "padded": (7.6, 0.16)}),
    ("streamingllm:retention=0.3", {"one": (7.4, 0.16), "padded": (7.4, 0.16)}),
    ("random:retention=0.3", {"one": (9.8, 0.41), "padded": (14.3, 0.72)}),
    ("tgvkv:retention=1.0", {"one": (3.8, 0.41), "padded": (6, 0.45)}),
    ("h2o:retention=0.3", {"one": (27.6, 1.15), "padded": (28.7, 1.15)}),
    ("tgvkv-released:retention=0.3", {"one": (58.5, 3.25), "padded": (60.5, 3.25)}),
    ("lightkv", {"one": (4.3, 0.1), "padded": (6.9, 0.16)}),
    ("lightkv | tgvkv:retention=0.3", {"one": (22.4, 0.92), "padded": (26.3, 1)}),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("method", "most"), PREFILLS)
def test_what_a_prefill_adds_to_each_layer(
    deep: VLM, batch: str, method: str, most: dict[str, tuple[float, float]]
) -> None:
    counted = counts(deep, batch, method)
    kernels, waits = most[batch]
    assert counted.prefill_kernels <= kernels
    assert counted.prefill_waits <= waits


# A stage after layer 18 beside none there; what comes once for all stages is in both.
STAGES = {
    "lightkv": (
        "lightkv:layers=(12,);windows=(2,);ratios=(0.25,)",
        "lightkv:layers=(12,18);windows=(2,2);ratios=(0.25,0.4)",
    ),
    "tome": ("tome:layers=(12,);ratios=(0.25,)", "tome:layers=(12,18);ratios=(0.25,0.4)"),
}


@pytest.mark.parametrize(
    ("method", "batch", "kernels", "waits"),
    [("lightkv", "one", 51, 0), ("lightkv", "padded", 90, 1), ("tome", "one", 40, 0)],
)
def test_what_one_more_stage_launches(
    deep: VLM, method: str, batch: str, kernels: int, waits: int
) -> None:
    fewer, more = (counts(deep, batch, text).prefill for text in STAGES[method])
    assert 20 < (more - fewer).launches <= kernels
    assert (more - fewer).syncs <= waits


@pytest.mark.parametrize(
    ("method", "most"),
    [
        ("random:retention=0.3", 235),
        ("streamingllm:retention=0.3", 264),
        ("tgvkv:retention=0.3", 260),
        ("lightkv", 152),
        ("lightkv | tgvkv:retention=0.3", 345),
    ],
)
def test_calls_that_a_prefill_adds_to_each_layer(
    deep: VLM, method: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once it was imported, a run looks whether a trace is active on some module.
    monkeypatch.delitem(sys.modules, "nnsight", raising=False)
    assert _calls_added(deep, method) <= most


def test_calls_that_a_prefill_adds_once_nnsight_was_imported(
    deep: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", nnsight)
    looking = _calls_added(deep, "lightkv")
    monkeypatch.delitem(sys.modules, "nnsight")
    assert looking - _calls_added(deep, "lightkv") <= 30


def _calls_added(vlm: VLM, method: str) -> float:
    """Calls of a prefill beyond the model's own, per layer."""
    inputs = stack(BATCHES["one"])

    def calls(one: Compressor | None) -> int:
        settings: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False}
        vlm.generate(dict(inputs), one, **settings)
        return calls_of(lambda: vlm.generate(dict(inputs), one, **settings))

    return (calls(compressor(method, vlm.facts)) - calls(None)) / LAYERS


@pytest.mark.parametrize("method", ["tgvkv:retention=0.3", "lightkv", "snapkv:retention=0.3"])
def test_a_step_that_needs_nothing_costs_nothing(deep: VLM, method: str) -> None:
    counted = counts(deep, "one", method)
    assert (counted.steps.launches, counted.steps.syncs) == (0, 0)


def test_a_step_against_rows_of_different_length_takes_one_more_column(deep: VLM) -> None:
    counted = counts(deep, "padded", "tgvkv:retention=0.3")
    assert counted.step_kernels <= 0.6
    assert counted.step_waits == 0


# With padding, attention that a policy reads is masked: two kernels more.
EVICTING = [
    ("h2o:retention=0.3", {"one": 16, "padded": 18}),
    ("h2o-recent:retention=0.3", {"one": 16, "padded": 18}),
    ("cake:retention=0.3;window=4", {"one": 13, "padded": 15}),
    ("tgvkv-released:retention=0.3", {"one": 10, "padded": 16}),
    ("streamingllm:retention=0.3", {"one": 5, "padded": 7}),
    ("prefixkv:retention=0.3", {"one": 3, "padded": 6}),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("method", "kernels"), EVICTING)
def test_a_step_that_evicts_knows_how_many_leave(
    deep: VLM, batch: str, method: str, kernels: dict[str, float]
) -> None:
    counted = counts(deep, batch, method)
    assert counted.step_kernels <= kernels[batch]
    assert counted.step_waits == 0


def test_records_are_made_when_they_are_read(deep: VLM) -> None:
    method = compressor("tgvkv:retention=0.3", deep.facts)
    generation = deep.generate(BATCHES["one"][0], method, max_new_tokens=1)
    with counted() as count:
        assert len(generation.records) == 1
    assert (count.launches, count.syncs) == (0, 0)
    with counted() as count:
        first = generation.records[0]
    assert count.syncs > 0
    with counted() as count:
        assert generation.records[0] is first
    assert (count.launches, count.syncs) == (0, 0)


def test_the_counter_counts() -> None:
    values = torch.arange(6.0).view(2, 3)
    with counted() as count:
        bigger = values.t()[1:] * 2  # views launch nothing
        assert bool((bigger > 1).any())
        _ = values[values > 2]
        _ = bigger.cpu().tolist()
    assert count.kernels == {"mul": 1, "gt": 2, "any": 1, "index": 1}
    assert count.waits == {"__bool__": 1, "index by mask": 1, "cpu": 1, "tolist": 1}


def gpu_waits(layers: int) -> Callable[[int, str | None], int]:
    """Counts what torch itself calls synchronising, in a model of so many layers on a GPU."""
    vlm = tiny_llava(layers=layers)
    vlm.model.to("cuda")
    inputs = {name: value.to("cuda") for name, value in BATCHES["one"][0].items()}

    def waits(tokens: int, text: str | None) -> int:
        method = None if text is None else compressor(text, vlm.facts)
        settings = {"max_new_tokens": tokens, "do_sample": False}
        vlm.generate(inputs, method, **settings)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning) as seen:
                vlm.generate(inputs, method, **settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(one.message) for one in seen)

    return waits


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["h2o:retention=0.3", "streamingllm:retention=0.3"])
def test_steps_do_not_synchronise_on_a_gpu(method: str) -> None:
    waits = gpu_waits(8)
    steps = waits(17, method) - waits(1, method) - (waits(17, None) - waits(1, None))
    assert steps <= 0.1 * 16 * 8


@pytest.mark.gpu
def test_a_stage_waits_a_few_times_on_a_gpu() -> None:
    waits = gpu_waits(8)
    staged = "lightkv:layers=(1,3,5);windows=(4,2,1);ratios=(0.3,0.3,0.3)"
    # A layout a stage comes to the host. The device of test_devices counts 5 in all.
    assert waits(1, staged) - waits(1, None) <= 3 + 8
