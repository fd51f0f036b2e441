"""Random controls draw for each question anew: other places, and in a batch the same as alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM, LightKV, Request
from lightkv.catalogue import compressor
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.embedded import items
from lightkv.inputs import row_identities
from tests.closeness import assert_close
from tests.tiny import prompt

SETTINGS: dict[str, Any] = {"max_new_tokens": 2, "do_sample": False}


def identities(vlm: VLM, inputs: dict[str, Tensor]) -> tuple[int, ...]:
    layout = vlm.layout(inputs)
    pixels = vlm.family.row_pixels(vlm.model.config, inputs, layout)
    return row_identities(inputs["input_ids"], layout.real, pixels)


@pytest.mark.parametrize("name", ZOO)
def test_a_row_is_known_by_its_own_words_and_pictures(name: str) -> None:
    vlm = ZOO[name].build()
    rows = ZOO[name].rows(vlm.model.config)
    alone = [identities(vlm, row)[0] for row in rows]
    assert len(set(alone)) == len(rows)
    assert identities(vlm, stack(rows)) == tuple(alone)
    assert identities(vlm, stack(rows[::-1])) == tuple(alone[::-1])
    for key, value in rows[0].items():
        if value.is_floating_point():
            other = {**rows[0], key: torch.randn_like(value)}
            assert identities(vlm, other)[0] != alone[0], key
    said = rows[0]["input_ids"].clone()
    said[0, -1] += 1
    assert identities(vlm, {**rows[0], "input_ids": said})[0] != alone[0]


def test_pixels_that_do_not_say_whose_they_are_count_for_every_row() -> None:
    vlm = ZOO["llava"].build()
    rows = ZOO["llava"].rows(vlm.model.config)
    batch = stack(rows[:2])
    batch["pixel_values"] = batch["pixel_values"].repeat(2, 1, 1, 1)
    layout = vlm.layout(batch)
    whole = vlm.family.row_pixels(vlm.model.config, batch, layout)
    assert [len(parts[0]) for parts in whole] == [4, 4]


class Note:
    """Keeps what layers would draw."""

    def __init__(self) -> None:
        self.seeds: dict[int, list[int]] = {}
        self.draws: dict[int, list[float]] = {}

    def layers(self, facts: ModelFacts) -> range:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def see(self, view: LayerView) -> None:
        self.seeds[view.layer] = view.row_seeds()
        drawn = [float(torch.rand(1, generator=one)) for one in view.generators()]
        self.draws[view.layer] = drawn


def noted(vlm: VLM, inputs: dict[str, Tensor], **options: Any) -> Note:
    note = Note()
    vlm.generate(inputs, observers=(note,), **SETTINGS, **options)
    return note


def test_seeds_differ_by_run_layer_and_prompt_and_nothing_else(tiny_vlm: VLM) -> None:
    rows = [prompt(1, 5), prompt(1, 5, seed=1), prompt(2, 3, seed=2)]
    together = noted(tiny_vlm, stack(rows))
    for number, row in enumerate(rows):
        alone = noted(tiny_vlm, row)
        assert [seeds[number] for seeds in together.seeds.values()] == [
            seeds[0] for seeds in alone.seeds.values()
        ]
    drawn = [seed for seeds in together.seeds.values() for seed in seeds]
    assert len(set(drawn)) == len(drawn) == 3 * tiny_vlm.facts.layers
    assert all(0 <= seed < 2**63 for seed in drawn)
    other = noted(tiny_vlm, rows[0], seed=1)
    assert not {seeds[0] for seeds in other.seeds.values()} & set(drawn)
    assert together.draws == noted(tiny_vlm, stack(rows)).draws


def test_rows_of_several_beams_draw_alike(tiny_vlm: VLM) -> None:
    note = noted(tiny_vlm, prompt(1, 5), num_beams=2)
    plain = noted(tiny_vlm, prompt(1, 5))
    assert note.seeds == {layer: 2 * seeds for layer, seeds in plain.seeds.items()}


METHODS = {
    "random": "random:retention=0.3",
    "random-vision": "random-vision:retention=0.7",
    "random guidance": LightKV((1,), (2,), (0.5,), guidance="random"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_keeps_what_single_rows_keep(tiny_vlm: VLM, name: str) -> None:
    rows = [prompt(1, 5), prompt(1, 9, seed=1), prompt(2, 3, seed=2)]
    together = tiny_vlm.generate(stack(rows), METHODS[name], **SETTINGS)
    for row, record in zip(rows, together.records, strict=True):
        alone = tiny_vlm.generate(row, METHODS[name], **SETTINGS).records[0]
        for ours, theirs in zip(record.layers, alone.layers, strict=True):
            assert torch.equal(ours.kept, theirs.kept)
            if ours.provenance is not None and theirs.provenance is not None:
                assert_close(ours.provenance.weight, theirs.provenance.weight)


@pytest.mark.parametrize("name", METHODS)
def test_questions_of_equal_length_lose_other_places(tiny_vlm: VLM, name: str) -> None:
    """One picture and another question, one question and another picture: both draw anew."""
    row = prompt(1, 5)
    words = row["input_ids"].clone()
    words[0, -1] = (words[0, -1] + 1) % 100 + 3
    other_words = {**row, "input_ids": words}
    other_picture = {**row, "pixel_values": -row["pixel_values"]}
    kept = []
    for inputs in (row, other_words, other_picture):
        record = tiny_vlm.generate(inputs, METHODS[name], **SETTINGS).records[0]
        last = record.layers[-1]
        weights = None if last.provenance is None else last.provenance.weight
        kept.append((last.kept.tolist(), None if weights is None else weights.tolist()))
    assert kept[0] != kept[1] and kept[0] != kept[2] and kept[1] != kept[2]


def test_no_place_is_lost_or_kept_by_every_question(embedded: VLM) -> None:
    """With one draw for all questions every share would be 0 or 1."""
    asked = items("color", 40)
    requests = [Request((item.image,), item.question) for item in asked]
    method = compressor("random-vision:retention=0.5", embedded.facts)
    counts = torch.zeros(512)
    for start in (0, 20):
        inputs = embedded.encode(requests[start : start + 20])
        generation = embedded.generate(inputs, method, **SETTINGS)
        for record in generation.records:
            counts[record.layers[3].kept] += 1
    vision = embedded.layout(embedded.encode(requests[:1])).vision[0].nonzero()[:, 0]
    share = counts[vision] / len(requests)
    # Forty draws of nearly one half: about one in a million lies beyond .1 and .9.
    assert float(share.min()) > 0.1 and float(share.max()) < 0.9


def test_views_made_by_hand_draw_too() -> None:
    from tests.eviction.prompts import causal

    view = causal("svvt")
    again = dataclasses.replace(view, identities=lambda: (0,))
    assert view.row_seeds() == again.row_seeds()
    other = dataclasses.replace(view, identities=lambda: (1,))
    assert view.row_seeds() != other.row_seeds()
