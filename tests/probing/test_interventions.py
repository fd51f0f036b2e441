"""Interventions against oracles of their own: hand-made masks in plain hooks, and donor runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.probing.probe import probe_inputs
from lightkv import VLM
from lightkv.contract.interventions import Intervention, Knockout, KVPatch
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from tests.closeness import assert_close, distance
from tests.graph.methods import KeepSome, MergeSome
from tests.probing.models import BATCH, ROWS
from tests.tiny import IMAGE_TOKEN, prompt, stack

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 4,
    "do_sample": False,
    "suppress_tokens": [IMAGE_TOKEN],
    "output_logits": True,
    "return_dict_in_generate": True,
}


def logits(output: Any) -> Tensor:
    return torch.stack(output.logits, 1)


def masked_forward(
    vlm: VLM, sequence: Tensor, row: dict[str, Tensor], layers: tuple[int, ...], hidden: Tensor
) -> Tensor:
    """Logits of a plain forward pass with pairs (1 or H, N, N) hidden in some layers, by hooks."""
    length = sequence.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool).tril() & ~hidden
    mask = visible[None]
    if vlm.attention == "eager":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo().min)

    def swap(_: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": mask}

    decoder = vlm.model.get_decoder()
    handles = [
        decoder.layers[layer].register_forward_pre_hook(swap, with_kwargs=True) for layer in layers
    ]
    inputs = {**row, "input_ids": sequence, "attention_mask": torch.ones_like(sequence)}
    with torch.no_grad():
        output: Tensor = vlm.model(**inputs).logits
    for handle in handles:
        handle.remove()
    return output


@pytest.mark.parametrize(
    ("source", "target"),
    [("text", "vision"), ("vision", "vision"), ("last", "vision"), ("text", "system")],
)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("heads", [None, (3, 0)])
def test_knockout_equals_a_plain_model_with_hidden_pairs(
    tiny_vlm: VLM, source: str, target: str, batched: bool, heads: tuple[int, ...] | None
) -> None:
    layers = (1, 3)
    cut = Knockout(layers, source, target, heads)
    rows = ROWS[:2]
    outputs = (
        [tiny_vlm.generate(stack(rows), interventions=(cut,), **SETTINGS).output] * 2
        if batched
        else [tiny_vlm.generate(row, interventions=(cut,), **SETTINGS).output for row in rows]
    )
    plain = tiny_vlm.model.generate(**rows[0], **SETTINGS)
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        place, length = (number if batched else 0), row["input_ids"].shape[1]
        new = output.sequences[place, -4:]
        sequence = torch.cat([row["input_ids"][0], new])[None]
        vision = sequence[0] == IMAGE_TOKEN
        order = torch.arange(len(vision))
        first = int(order[vision][0])
        queries = {
            "text": ~vision & (order > first),
            "vision": vision,
            "last": order >= length - 1,
        }[source]
        keys = {"vision": vision, "system": order < first}[target]
        hidden = (queries[:, None] & keys[None] & (order[:, None] != order[None]))[None]
        if heads is not None:
            hidden = torch.stack([hidden[0] & (head in heads) for head in range(4)])
        expected = masked_forward(tiny_vlm, sequence, row, layers, hidden)[0, length - 1 : -1]
        step_logits = logits(output)[place]
        assert_close(step_logits, expected)
        if number == 0:
            assert distance(step_logits[0], logits(plain)[0, 0]) > 1e-2


def test_a_knocked_out_head_goes_blind_and_the_others_see_as_before(tiny_vlm: VLM) -> None:
    plain = probe_inputs(tiny_vlm, [BATCH], "block_sum", layers=[2], heads="all")
    cut = (Knockout((2,), "text", "vision", heads=(1,)),)
    data = probe_inputs(tiny_vlm, [BATCH], "block_sum", [2], "all", interventions=cut)
    seen, before = (one.block_sum.sel(block="TV") for one in (data, plain))
    assert (seen.sel(head=1) == 0).all() and (before.sel(head=1) > 0).all()
    assert_close(seen.sel(head=[0, 2, 3]), before.sel(head=[0, 2, 3]))


@pytest.mark.parametrize("method", [KeepSome(), MergeSome((1,)) | KeepSome()])
def test_all_heads_named_are_all_heads(tiny_vlm: VLM, method: Any) -> None:
    outputs = []
    for heads in (None, (0, 1, 2, 3), (0, 1, 2)):
        cut = (Knockout((2, 3), "text", "vision", heads),)
        outputs.append(
            logits(tiny_vlm.generate(BATCH, method, interventions=cut, **SETTINGS).output)
        )
    assert_close(outputs[1], outputs[0])
    assert distance(outputs[2], outputs[0]) > 1e-3


def test_knockout_works_after_merging_and_with_eviction(tiny_vlm: VLM) -> None:
    whole = range(tiny_vlm.facts.layers)
    cut = Knockout(tuple(whole), "text", "vision")
    inputs = prompt(1, 5)
    other = {**inputs, "pixel_values": torch.randn_like(inputs["pixel_values"])}
    for method in (MergeSome((1,)), KeepSome(), MergeSome((1,)) | KeepSome()):
        one = tiny_vlm.generate(inputs, method, interventions=(cut,), **SETTINGS)
        two = tiny_vlm.generate(other, method, interventions=(cut,), **SETTINGS)
        # Text that never sees the image can't tell two images apart.
        assert_close(logits(one.output), logits(two.output))
        seen = tiny_vlm.generate(other, method, **SETTINGS)
        assert distance(logits(two.output), logits(seen.output)) > 1e-2


class Donors:
    """Keeps the cache entries of every layer."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def layers(self, facts: ModelFacts) -> range:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def see(self, view: LayerView) -> None:
        assert view.keys is not None and view.values is not None
        self.keys[view.layer], self.values[view.layer] = view.keys.clone(), view.values.clone()
        self.layout = view.layout


def donors_of(vlm: VLM, inputs: dict[str, Tensor]) -> Donors:
    watch = Donors()
    vlm.generate(inputs, observers=(watch,), max_new_tokens=1)
    return watch


def patch_of(donors: Donors, layers: tuple[int, ...]) -> KVPatch:
    return KVPatch(layers, donors.keys, donors.values, donors.layout)


@pytest.mark.parametrize("inputs", [ROWS[0], BATCH], ids=["single", "batch"])
def test_vision_entries_of_all_layers_carry_the_whole_image(
    tiny_vlm: VLM, inputs: dict[str, Tensor]
) -> None:
    other = {**inputs, "pixel_values": torch.randn_like(inputs["pixel_values"])}
    donors = donors_of(tiny_vlm, other)
    everywhere = tuple(range(tiny_vlm.facts.layers))
    # Text sees nothing of an image but its keys and values, so all of them make it the other image
    # (with two images in a row, text between them is seen as well and has to be left alone).
    rows = [0, 1] if inputs is BATCH else [0]
    expected = logits(tiny_vlm.model.generate(**other, **SETTINGS))
    patched = tiny_vlm.generate(inputs, interventions=(patch_of(donors, everywhere),), **SETTINGS)
    patched_logits = logits(patched.output)
    assert_close(patched_logits[rows], expected[rows])
    half = tiny_vlm.generate(inputs, interventions=(patch_of(donors, (3, 4)),), **SETTINGS)
    assert distance(logits(half.output)[rows], expected[rows]) > 1e-2


def test_entries_swapped_for_themselves_change_nothing(tiny_vlm: VLM) -> None:
    donors = donors_of(tiny_vlm, BATCH)
    same = tiny_vlm.generate(BATCH, interventions=(patch_of(donors, (0, 2)),), **SETTINGS)
    plain = tiny_vlm.model.generate(**BATCH, **SETTINGS)
    assert torch.equal(logits(same.output), logits(plain))


def test_no_intervention_is_the_plain_call_bit_for_bit(tiny_vlm: VLM) -> None:
    plain = logits(tiny_vlm.model.generate(**BATCH, **SETTINGS))
    assert torch.equal(logits(tiny_vlm.generate(BATCH, **SETTINGS).output), plain)
    unused = Intervention((1,))
    assert_close(
        logits(tiny_vlm.generate(BATCH, interventions=(unused,), **SETTINGS).output), plain, 1e-6
    )


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda: Knockout((5,)), "from 0 to 4"),
        (lambda: Knockout(()), "at least one layer"),
        (lambda: Knockout((1,), "image"), "source"),
        (lambda: Knockout((1,), "text", "image"), "target"),
        (lambda: Knockout((1,), heads=(4,)), "from 0 to 3"),
        (lambda: Knockout((1,), heads=(-1,)), "from 0 to 3"),
        (lambda: Knockout((1,), heads=()), "at least one head"),
        (lambda: Knockout((1,), heads=(2, 2)), "each once"),
    ],
)
def test_wrong_knockouts(tiny_vlm: VLM, cut: Callable[[], Knockout], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        tiny_vlm.generate(ROWS[0], interventions=(cut(),), **SETTINGS)


def test_wrong_patches(tiny_vlm: VLM) -> None:
    donors = donors_of(tiny_vlm, ROWS[0])
    with pytest.raises(InputError, match="not at the same positions"):
        tiny_vlm.generate(ROWS[1], interventions=(patch_of(donors, (1,)),), **SETTINGS)
    with pytest.raises(UnsupportedError, match="after a merging stage"):
        tiny_vlm.generate(
            ROWS[0], MergeSome((1,)), interventions=(patch_of(donors, (3,)),), **SETTINGS
        )
    del donors.keys[2]
    with pytest.raises(InvalidValueError, match="layers of the donors"):
        tiny_vlm.generate(ROWS[0], interventions=(patch_of(donors, (2,)),), **SETTINGS)
    with pytest.raises(UnsupportedError, match="use_cache"):
        tiny_vlm.generate(ROWS[0], interventions=(Knockout((1,)),), use_cache=False)
