"""Compression on the graph equals masking on the full-length model, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM, Request
from lightkv.catalogue import method as evictor
from lightkv.contract.compressor import Compressor
from lightkv.embedded.questions import items
from lightkv.errors import InvalidValueError
from tests.closeness import assert_close, distance
from tests.graph.methods import KeepNewest, KeepSome, MergeSome
from tests.graph.oracle import MaskedRun
from tests.tiny import prompt, stack

TOLERANCE = 1e-5
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 5,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}

BATCHES = {
    "one": [prompt(1, 5)],
    "padded": [prompt(1, 5), prompt(1, 9, seed=1), prompt(2, 3, seed=2)],
    "with text only": [prompt(1, 5), prompt(0, 6, seed=3)],
}


def logits(output: Any) -> Tensor:
    return torch.stack(output.logits, 1)


def worst(ours: Any, theirs: Any) -> float:
    """Largest difference relative to the largest logit."""
    return distance(logits(ours), logits(theirs))


def kept_masks(vlm: VLM, inputs: dict[str, Tensor], records: Any) -> list[Tensor]:
    """Per layer (B, N) visible prompt keys, from what the records say."""
    real = inputs["attention_mask"].bool()
    padding = (~real).sum(1)
    masks = []
    for layer in range(vlm.facts.layers):
        visible = torch.zeros_like(real)
        for row, record in enumerate(records):
            visible[row, record.layers[layer].kept + padding[row]] = True
        masks.append(visible)
    return masks


def oracle(vlm: VLM, inputs: dict[str, Tensor], records: Any, stage: int | None = None) -> Any:
    """The uncompressed model, masked as the records say."""
    real = inputs["attention_mask"].bool()
    padding = (~real).sum(1)
    layers = vlm.model.get_decoder().layers
    if stage is None:
        return MaskedRun(vlm.model, layers, kept_masks(vlm, inputs, records)).generate(
            inputs, **SETTINGS
        )
    survivors = torch.zeros_like(real)
    weights = torch.zeros(len(records), real.shape[1], real.shape[1])
    for row, record in enumerate(records):
        reduction = record.layers[-1].provenance
        shift = int(padding[row])
        survivors[row, reduction.index[0] + shift] = True
        weights[row, : reduction.new_length, shift:] = reduction.matrix()[0]
    prefill = [real if number <= stage else survivors for number in range(vlm.facts.layers)]
    return MaskedRun(
        vlm.model,
        layers,
        kept_masks(vlm, inputs, records),
        prefill,
        {stage + 1: (weights, survivors)},
    ).generate(inputs, **SETTINGS)


@pytest.mark.parametrize("batch", BATCHES)
def test_without_compressor_bits_are_those_of_plain_generate(tiny_vlm: VLM, batch: str) -> None:
    inputs = stack(BATCHES[batch])
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    assert torch.equal(logits(tiny_vlm.generate(inputs, **SETTINGS).output), logits(plain))


@pytest.mark.parametrize("batch", BATCHES)
def test_evicting_nothing_changes_no_bit(tiny_vlm: VLM, batch: str) -> None:
    inputs = stack(BATCHES[batch])
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    ours = tiny_vlm.generate(inputs, KeepSome(retention=2.0), **SETTINGS)
    assert torch.equal(logits(ours.output), logits(plain))
    assert all(record.achieved_retention == 1 for record in ours.records)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("skip", [(), (0,), (0, 3)], ids=["all", "not first", "not 0 and 3"])
def test_eviction_equals_masking(tiny_vlm: VLM, batch: str, skip: tuple[int, ...]) -> None:
    inputs = stack(BATCHES[batch])
    ours = tiny_vlm.generate(inputs, KeepSome(skip_layers=skip), **SETTINGS)
    assert any(record.achieved_retention < 0.8 for record in ours.records)
    assert worst(ours.output, oracle(tiny_vlm, inputs, ours.records)) < TOLERANCE


@pytest.mark.parametrize("batch", BATCHES)
def test_rows_that_keep_equally_many_equal_masking(tiny_vlm: VLM, batch: str) -> None:
    inputs = stack(BATCHES[batch])
    ours = tiny_vlm.generate(inputs, KeepNewest(), **SETTINGS)
    assert worst(ours.output, oracle(tiny_vlm, inputs, ours.records)) < TOLERANCE


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("evict", [False, True], ids=["merge", "merge and evict"])
def test_shortening_equals_masking(tiny_vlm: VLM, batch: str, stage: int, evict: bool) -> None:
    inputs = stack(BATCHES[batch])
    method: Compressor = MergeSome((stage,))
    if evict:
        method = method | KeepSome()
    ours = tiny_vlm.generate(inputs, method, **SETTINGS)
    assert ours.records[0].prefill_lengths[-1] < ours.records[0].prefill_lengths[0]
    assert worst(ours.output, oracle(tiny_vlm, inputs, ours.records, stage)) < TOLERANCE


def test_the_oracle_notices_one_key_too_many(tiny_vlm: VLM) -> None:
    inputs = stack(BATCHES["one"])
    ours = tiny_vlm.generate(inputs, KeepSome(), **SETTINGS)
    masks = kept_masks(tiny_vlm, inputs, ours.records)
    hidden = int((~masks[2][0]).nonzero()[0])
    masks[2][0, hidden] = True
    wrong = MaskedRun(tiny_vlm.model, tiny_vlm.model.get_decoder().layers, masks)
    assert worst(ours.output, wrong.generate(inputs, **SETTINGS)) > 100 * TOLERANCE


@pytest.mark.parametrize(
    "method",
    [
        KeepSome(),
        KeepSome(per_head=True),
        MergeSome((0, 2)),
        MergeSome((-1,)),
        MergeSome((1, 3), positions="reindex"),
        MergeSome((1,)) | KeepSome(),
    ],
    ids=str,
)
def test_a_row_answers_as_it_would_alone(tiny_vlm: VLM, method: Compressor) -> None:
    rows = BATCHES["padded"]
    together = tiny_vlm.generate(stack(rows), method, **SETTINGS)
    for number, row in enumerate(rows):
        alone = tiny_vlm.generate(row, method, **SETTINGS)
        assert_close(logits(together.output)[number], logits(alone.output)[0], TOLERANCE)
        for ours, theirs in zip(
            together.records[number].layers, alone.records[0].layers, strict=True
        ):
            assert torch.equal(ours.kept, theirs.kept)
        assert together.records[number].kv_bytes == alone.records[0].kv_bytes


def test_reindexed_positions_are_those_of_a_shorter_prompt(tiny_vlm: VLM) -> None:
    """Pruning before the first layer with renumbering equals a prompt without those tokens.

    So do the tokens that follow, unless only the prefill is renumbered.
    """
    row = prompt(1, 5)
    ours = tiny_vlm.generate(row, MergeSome((-1,), positions="reindex"), **SETTINGS)
    released = tiny_vlm.generate(row, MergeSome((-1,), positions="reindex-prefill"), **SETTINGS)
    provenance = ours.records[0].layers[0].provenance
    assert provenance is not None
    embedded: list[Tensor] = []
    layer = tiny_vlm.model.get_decoder().layers[0]
    handle = layer.register_forward_pre_hook(lambda _, args: embedded.append(args[0]))
    tiny_vlm.model.generate(**row, **{**SETTINGS, "max_new_tokens": 1})
    handle.remove()
    said = ours.output.sequences[:, row["input_ids"].shape[1] : -1]
    shorter = provenance.matrix() @ embedded[0]
    whole = torch.cat([shorter, tiny_vlm.model.get_input_embeddings()(said)], 1)
    with torch.no_grad():
        state = tiny_vlm.model.get_decoder()(inputs_embeds=whole).last_hidden_state
        expected = tiny_vlm.model.lm_head(state[:, shorter.shape[1] - 1 :])
    assert logits(ours.output).shape[1] > 3
    assert_close(logits(ours.output), expected, TOLERANCE)
    first, second = (logits(released.output)[:, step] for step in (0, 1))
    assert_close(first, expected[:, 0], TOLERANCE)
    assert distance(second, expected[:, 1]) > 100 * TOLERANCE


def test_a_renumbered_prompt_goes_on_where_it_ends_in_every_layer(tiny_vlm: VLM) -> None:
    """A later token's position is the layer's length and what was said since; eviction aside."""
    row = prompt(1, 9)
    method = MergeSome((1, 3), positions="reindex") | KeepSome(0.5)
    layers = tiny_vlm.model.get_decoder().layers
    rotary: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs, number=number: rotary[number].append(
                kwargs["position_embeddings"][0]
            ),
            with_kwargs=True,
        )
        for number, layer in enumerate(layers)
    ]
    record = tiny_vlm.generate(row, method, **SETTINGS).records[0]
    for hook in hooks:
        hook.remove()
    table = tiny_vlm.family.rotary_at(tiny_vlm.model, torch.arange(64)[None], 0)[0][0]
    for layer, seen in zip(record.layers, rotary, strict=True):
        for step, cos in enumerate(seen[1:]):
            assert torch.equal(cos[0, 0], table[layer.length + step])


def test_two_parts_that_renumber_are_refused(tiny_vlm: VLM) -> None:
    method = MergeSome((1,), positions="reindex") | evictor("streamingllm-reindexed", 0.5)
    with pytest.raises(InvalidValueError, match="one part that renumbers"):
        tiny_vlm.generate(prompt(1, 9), method, **SETTINGS)


@pytest.mark.parametrize("count", [1, 3])
def test_equivalence_holds_on_the_embedded_model(embedded: VLM, count: int) -> None:
    drawn = [*items("read", 1, seed=9), *items("caption", 1, seed=9), *items("where", 1, seed=9)]
    inputs = embedded.encode([Request((i.image,), i.question) for i in drawn[:count]])
    cases: list[tuple[Compressor, int | None]] = [
        (KeepSome(), None),
        (MergeSome((2,)), 2),
        (MergeSome((4,)) | KeepSome(), 4),
    ]
    for method, stage in cases:
        ours = embedded.generate(inputs, method, **SETTINGS)
        assert worst(ours.output, oracle(embedded, inputs, ours.records, stage)) < TOLERANCE
