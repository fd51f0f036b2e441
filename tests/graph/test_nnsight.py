"""Beside nnsight: traces of a user's own around compressed generations, and what fails in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnsight import NNsight
from torch import Tensor

from lightkv import VLM
from lightkv.contract.interventions import Knockout
from lightkv.contract.observer import Observer
from lightkv.contract.view import LayerView
from lightkv.engine.traces import is_traced
from lightkv.errors import UnsupportedError
from tests.counting import calls_of
from tests.graph.methods import KeepSome, MergeSome
from tests.tiny import prompt, stack, tiny_llava

SETTINGS: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
METHOD = MergeSome((1,)) | KeepSome()
LAYER = 3


class Lengths(Observer):
    """Notes how many tokens each layer processed."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def see(self, view: LayerView) -> None:
        self.seen.append(view.layout.length)


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return stack([prompt(1, 5), prompt(1, 9, seed=1)])


@pytest.fixture
def traced(tiny_vlm: VLM) -> Any:
    return NNsight(tiny_vlm.model)


def layer_of(traced: Any) -> Any:
    return traced.model.language_model.layers[LAYER]


def test_a_trace_around_a_compressed_generation_sees_what_it_computes(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor]
) -> None:
    quick = tiny_vlm.compressed_by(METHOD)
    alone = quick.generate(**inputs, **SETTINGS)
    lengths = [record.prefill_lengths[LAYER] for record in quick.records]
    shapes = []
    with traced.trace(fn=quick.generate, **inputs, **SETTINGS) as tracer:
        for _ in tracer.iter[:3]:
            shapes.append(layer_of(traced).output.shape)
    with traced.trace(fn=quick.generate, **inputs, **SETTINGS) as tracer:
        first = layer_of(traced).output.save()
        answer = tracer.result.save()
    assert torch.equal(answer, alone)
    assert first.shape[1] == max(lengths) < inputs["input_ids"].shape[1]
    assert [tuple(shape[:2]) for shape in shapes] == [(2, max(lengths)), (2, 1), (2, 1)]
    assert [record.prefill_lengths[LAYER] for record in quick.records] == lengths


def test_what_a_trace_writes_acts_under_compression(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor]
) -> None:
    quick = tiny_vlm.compressed_by(METHOD)
    settings = {**SETTINGS, "output_logits": True, "return_dict_in_generate": True}
    alone = quick.generate(**inputs, **settings).logits
    with traced.trace(fn=quick.generate, **inputs, **settings) as tracer:
        layer_of(traced).output[:] = 0
        changed = tracer.result.save()
    assert not torch.equal(changed.logits[0], alone[0])
    with traced.trace(fn=quick.generate, **inputs, **settings) as tracer:
        queries = layer_of(traced).self_attn.source.attention_interface_1.inputs[0][1].save()
        unchanged = tracer.result.save()
    assert queries.shape[2] == max(record.prefill_lengths[LAYER] for record in quick.records)
    assert torch.equal(unchanged.logits[0], alone[0])


@pytest.mark.parametrize("driver", [None, "auto", "hooks"])
def test_observers_and_interventions_work_inside_a_trace(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor], driver: Any
) -> None:
    cut = (Knockout((2, 3), "text", "vision"),)
    outside = Lengths()
    expected = tiny_vlm.generate(
        inputs, METHOD, observers=(outside,), interventions=cut, **SETTINGS
    )
    inside = Lengths()

    def run(**traced_inputs: Any) -> Tensor:
        tensors = {name: traced_inputs[name] for name in inputs}
        output: Tensor = tiny_vlm.generate(
            tensors, METHOD, observers=(inside,), interventions=cut, driver=driver, **SETTINGS
        ).output
        return output

    with traced.trace(fn=run, **inputs) as tracer:
        hidden = layer_of(traced).output.save()
        answer = tracer.result.save()
    assert torch.equal(answer, expected.output)
    assert inside.seen == outside.seen
    assert hidden.shape[1] == inside.seen[LAYER]


def test_two_traces_of_ours_inside_one_another_are_refused_in_words(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor]
) -> None:
    def run(**traced_inputs: Any) -> Tensor:
        output: Tensor = tiny_vlm.generate(
            traced_inputs, METHOD, driver="nnsight", **SETTINGS
        ).output
        return output

    with (
        pytest.raises(UnsupportedError, match=r"leave driver out"),
        traced.trace(fn=run, **inputs),
    ):
        hidden = layer_of(traced).output.save()  # noqa: F841


def test_a_generation_in_the_body_of_a_trace_is_refused_in_words(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor]
) -> None:
    quick = tiny_vlm.compressed_by(METHOD)
    with pytest.raises(UnsupportedError, match=r"trace\(fn=quick\.generate"):  # noqa: SIM117
        with traced.trace(**inputs):
            hidden = layer_of(traced).output.save()  # noqa: F841
            quick.generate(**inputs, **SETTINGS)


def test_a_plain_trace_runs_the_plain_model(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor]
) -> None:
    tiny_vlm.compressed_by(METHOD).generate(**inputs, **SETTINGS)
    with traced.trace(**inputs):
        hidden = layer_of(traced).output.save()
    assert hidden.shape[1] == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_trace_is_noticed_wherever_it_runs_and_only_while_it_does(
    tiny_vlm: VLM, inputs: dict[str, Tensor], whole: bool
) -> None:
    decoder = tiny_vlm.model.get_decoder()
    # The last module of all: whoever stops looking before it misses its trace.
    part = tiny_vlm.model if whole else list(decoder.modules())[-1]
    wrapped = NNsight(part)
    seen: list[bool] = []

    def run(**given: Any) -> Any:
        seen.append(is_traced(decoder))
        return tiny_vlm.model.generate(**given)

    assert not is_traced(decoder)
    with wrapped.trace(fn=run, **inputs, max_new_tokens=1):
        _ = wrapped.output
    assert seen == [True]
    assert not is_traced(decoder)


def test_looking_for_a_trace_costs_a_few_calls_a_module() -> None:
    vlm = tiny_llava(layers=16)
    decoder = vlm.model.get_decoder()
    modules = len(list(decoder.modules()))
    assert calls_of(lambda: is_traced(decoder)) <= 2.2 * modules
    wrapped = NNsight(vlm.model)
    assert calls_of(lambda: is_traced(decoder)) <= 5.2 * modules
    del wrapped


@pytest.mark.parametrize("what", ["model", "attached"])
def test_what_is_not_a_module_says_what_to_wrap(tiny_vlm: VLM, what: str) -> None:
    thing = tiny_vlm if what == "model" else tiny_vlm.compressed_by(METHOD)
    with pytest.raises(UnsupportedError, match=r"is not a torch module.*NNsight\(vlm\.model\)"):
        NNsight(thing)


@pytest.mark.parametrize("driver", ["nnsight", "hooks"])
def test_after_traces_of_all_kinds_runs_are_as_before(
    tiny_vlm: VLM, traced: Any, inputs: dict[str, Tensor], driver: Any
) -> None:
    before = tiny_vlm.generate(inputs, METHOD, driver=driver, **SETTINGS).output
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    quick = tiny_vlm.compressed_by(METHOD)
    with traced.trace(fn=quick.generate, **inputs, **SETTINGS):
        hidden = layer_of(traced).output.save()  # noqa: F841
    after = tiny_vlm.generate(inputs, METHOD, driver=driver, **SETTINGS).output
    assert torch.equal(after, before)
    assert torch.equal(tiny_vlm.model.generate(**inputs, **SETTINGS), plain)
