"""What an observer may ask for, and what it is shown if it doesn't say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lightkv import VLM, Observer
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from tests.graph.methods import KeepSome, MergeSome
from tests.tiny import prompt


class Notes(Observer):
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, bool]] = []

    def see(self, view: LayerView) -> None:
        self.shown.append((view.layer, view.layout.length, view.attention is not None))


class Asking(Notes):
    """As :class:`Notes`, of layers that it names."""

    def __init__(self, layers: Sequence[int], attention: Sequence[int] = ()) -> None:
        super().__init__()
        self.asked, self.read = layers, attention

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return self.asked

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return self.read


def seen(vlm: VLM, notes: Notes, method: Any = None) -> list[tuple[int, int, bool]]:
    vlm.generate(prompt(1, 5), method, observers=[notes], max_new_tokens=2, do_sample=False)
    return notes.shown


def test_it_is_shown_every_layer_once_and_no_attention(tiny_vlm: VLM) -> None:
    length = prompt(1, 5)["input_ids"].shape[1]
    assert seen(tiny_vlm, Notes()) == [(layer, length, False) for layer in range(5)]


def test_it_is_shown_what_a_stage_leaves(tiny_vlm: VLM) -> None:
    lengths = [length for _, length, _ in seen(tiny_vlm, Notes(), MergeSome((1,)) | KeepSome())]
    assert lengths[0] == lengths[1] > lengths[2] == lengths[4]


def test_it_is_shown_the_layers_and_the_attention_that_it_names(tiny_vlm: VLM) -> None:
    shown = seen(tiny_vlm, Asking((-1, 2, 4), (4,)))
    assert [(layer, attention) for layer, _, attention in shown] == [
        (-1, False),
        (2, False),
        (4, True),
    ]


@pytest.mark.parametrize(
    ("layers", "attention", "message"),
    [
        ((5,), (), "layers of Asking.*from 0 to 4"),
        ((-2,), (), "layers of Asking.*-1 for the input"),
        ((1, 2), (3,), "attention_layers of Asking.*among those"),
        ((-1, 2), (-1,), "attention_layers of Asking.*decoder layers"),
    ],
)
def test_layers_that_it_cannot_be_shown(
    tiny_vlm: VLM, layers: Sequence[int], attention: Sequence[int], message: str
) -> None:
    notes = Asking(layers, attention)
    with pytest.raises(InvalidValueError, match=message):
        seen(tiny_vlm, notes)
    assert notes.shown == []
