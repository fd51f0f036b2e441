"""Captured cache entries: what they hold, and that they carry an image into another prompt."""

from __future__ import annotations

import pytest
import torch

from analysis.probing.interventions import answer_tokens
from analysis.probing.patching import capture_kv, donors_for, patches
from lightkv import VLM, Request
from lightkv.embedded import items
from lightkv.errors import InvalidValueError
from lightkv.settings import GREEDY
from tests.closeness import assert_close, distance

QUESTION = "what color is the circle ?"


def requests(*numbers: int) -> list[Request]:
    return [Request((items("color", 4)[number].image,), QUESTION) for number in numbers]


def test_captured_entries_are_those_of_a_plain_prefill(embedded: VLM) -> None:
    asked = requests(0, 1)
    captured = capture_kv(embedded, asked)
    with torch.no_grad():
        cache = embedded.model(**embedded.encode(asked), use_cache=True).past_key_values
    assert sorted(captured.keys) == list(range(embedded.facts.layers))
    for number, layer in enumerate(cache.layers):
        assert_close(captured.keys[number], layer.keys)
        assert_close(captured.values[number], layer.values)
    heads, (length, width) = embedded.facts.kv_heads, layer.keys.shape[2:]
    text = f"8 layers of 2 prompts x {heads} heads x {length} tokens x {width}"
    assert repr(captured) == f"CapturedKV({text})"
    assert captured.layout.batch_size == 2


def test_entries_of_all_layers_make_it_the_other_image(embedded: VLM) -> None:
    mine, other = requests(0), requests(1)
    captured = capture_kv(embedded, other)
    settings = {"max_new_tokens": 2, "output_logits": True, "return_dict_in_generate": True}
    logits = [
        embedded.generate(embedded.encode(asked), interventions=cut, **settings, **GREEDY)
        for asked, cut in (
            (mine, [captured.patch(range(8))]),
            (other, []),
            (mine, [captured.patch([7])]),
        )
    ]
    patched, theirs, late = (one.output.logits[0] for one in logits)
    assert_close(patched, theirs)
    assert distance(late, theirs) > 1e-2


def test_layers_without_entries_are_refused(embedded: VLM) -> None:
    captured = capture_kv(embedded, requests(0))
    with pytest.raises(InvalidValueError, match="from 0 to 7"):
        embedded.generate(
            embedded.encode(requests(1)), interventions=[captured.patch([8])], max_new_tokens=1
        )


def test_a_patch_from_a_layer_on_reaches_all_later_ones(embedded: VLM) -> None:
    mine, theirs = (answer_tokens(embedded, [word])[:1] for word in ("yellow", "red"))
    frame = patches(embedded, requests(0), requests(1), mine, theirs)
    assert frame["layer"].tolist() == list(range(8))
    captured = capture_kv(embedded, requests(1))
    inputs = embedded.encode(requests(0))
    for first in (2, 7):
        settings = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
        cut = [captured.patch(range(first, 8))]
        logits = embedded.generate(inputs, interventions=cut, **settings, **GREEDY).output.logits
        chance = torch.log_softmax(logits[0][0], -1)
        expected = chance[theirs[0][0]] - chance[mine[0][0]]
        assert frame["preference"][first] == pytest.approx(float(expected), abs=1e-3)


def test_a_donor_has_the_same_words_and_another_answer() -> None:
    assert donors_for(["a", "a", "b", "a"], [1, 1, 2, 3]) == [3, 3, None, 0]
