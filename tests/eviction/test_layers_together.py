"""Layers that are observed together: stacked and split they are what they were."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightkv.catalogue import method
from lightkv.contract import attention as module
from lightkv.contract.attention_sources import PickedAttention, ProjectedAttention
from lightkv.contract.compressor import Evictor, Observation
from lightkv.contract.marked import Picked
from lightkv.contract.view import LayerView
from lightkv.eviction.together import blocks, split, stacked
from tests.closeness import assert_close
from tests.eviction.prompts import Rows

TEXTS = ["ssvvvvvvttt", "svvvvtttt"]


def views(*, every: bool = False) -> list[LayerView]:
    """Three layers of two prompts, of whose queries all or the question's are read."""
    seen = Rows(TEXTS, 2).views()
    layout = seen[0].layout
    picked = Picked.of(layout.real if every else layout.question)
    layers = []
    for view in seen:
        attention = view.read_attention()
        assert isinstance(attention, ProjectedAttention)
        layers.append(replace(view, layout=layout, attention=attention.of_queries(picked)))
    return layers


def together(layers: list[LayerView]) -> PickedAttention:
    attention = stacked(layers, entries=False).attention
    assert isinstance(attention, PickedAttention)
    return attention


def test_rows_of_the_first_layer_come_first() -> None:
    layers = views()
    whole = stacked(layers, entries=True)
    assert whole.layout.batch_size == 6
    assert torch.equal(whole.sizes, torch.cat([one.sizes for one in layers]))
    for name in ("keys", "values"):
        wanted = torch.cat([getattr(one, name) for one in layers])
        assert torch.equal(getattr(whole, name), wanted)
    without = stacked(layers, entries=False)
    assert without.keys is None
    assert without.values is None
    assert torch.equal(
        together(layers).queries, torch.cat([together([one]).queries for one in layers])
    )
    assert stacked(layers[:1], entries=True) is layers[0]


@pytest.mark.parametrize("claimed", [False, True])
def test_what_was_observed_goes_back_to_its_layer(claimed: bool) -> None:
    layers = views()
    whole = stacked(layers, entries=False)
    length = whole.layout.length
    score, claims = torch.rand(6, 2, length), torch.rand(6, 2, length)
    strength = torch.rand(6)
    observed = Observation(whole.layout, score, strength, claims=claims if claimed else None)
    for number, one in enumerate(split(observed, whole, layers)):
        part = slice(2 * number, 2 * number + 2)
        assert torch.equal(one.score, score[part])
        assert torch.equal(one.strength, strength[part])
        assert one.layout is layers[0].layout
        if claimed:
            assert one.claims is not None
            assert torch.equal(one.claims, claims[part])
        else:
            assert one.claims is None


def test_a_block_holds_layers_that_fit_and_are_masked_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = views()
    assert [len(block) for block in blocks(layers)] == [3]
    numbers = 2 * 4 * 4 * layers[0].layout.length  # rows, heads, queries, keys
    monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", 2 * numbers)
    assert [len(block) for block in blocks(layers)] == [2, 1]
    monkeypatch.undo()
    middle = together([layers[1]])
    bare = PickedAttention(middle.queries, middle.keys, middle.scaling, None, middle.place)
    mixed = [layers[0], replace(layers[1], attention=bare), layers[2]]
    assert [len(block) for block in blocks(mixed)] == [1, 1, 1]
    assert [len(block) for block in blocks([layers[0], layers[1], mixed[1]])] == [2, 1]


@pytest.mark.parametrize("name", ["look-m", "aircache", "vl-cache", "snapkv", "tgvkv"])
def test_layers_are_observed_together_as_alone(name: str) -> None:
    evictor = method(name, 0.5)
    assert isinstance(evictor, Evictor)
    layers = views(every=True)
    assert len(next(blocks(layers))) == 3
    for one, view in zip(evictor.observe_together(layers), layers, strict=True):
        alone = evictor.observe(view)
        assert_close(one.score, alone.score)
        assert_close(one.strength, alone.strength)
        assert (one.keys is None) == (alone.keys is None)
        if one.keys is not None and alone.keys is not None:
            assert torch.equal(one.keys, alone.keys)
        if alone.claims is not None:
            assert_close(one.claims, alone.claims)
