"""Several layers at once, and the ways in which an entry leaves: the same as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightkv import VLM
from lightkv.catalogue import compressor
from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.compressor import Evictor
from lightkv.contract.layout import Grid, TokenLayout, single_layout
from lightkv.contract.marked import Picked
from lightkv.contract.view import EntriesView, LayerView, ModelFacts
from lightkv.engine import dropping, prefill
from lightkv.engine.cache import LayerEntries
from tests.closeness import assert_close
from tests.tiny import prompt, stack, tiny_llava

LAYERS = 3
ROWS = [prompt(1, 9), prompt(2, 5, seed=1)]


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_llava(layers=LAYERS)


class Views:
    """Keeps the views of all layers."""

    def __init__(self) -> None:
        self.seen: list[LayerView] = []

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    attention_layers = layers

    def see(self, view: LayerView) -> None:
        self.seen.append(view)


def evictor(vlm: VLM, text: str) -> Evictor:
    (method,) = compressor(text, vlm.facts).parts
    assert isinstance(method, Evictor)
    return method


NAMED = [
    "tgvkv:retention=0.4",
    "tgvkv:retention=0.4;text_scope=text",
    "snapkv:retention=0.4;window=4;per_head=True",
    "pyramidkv:retention=0.4;window=4",
    "ada-kv:retention=0.4;window=4",
    "cake:retention=0.4;window=4",
    "aircache:retention=0.4",
    "budget-tt:retention=0.4",
    "key-norm:retention=0.4",
    "random:retention=0.4",
    "streamingllm:retention=0.4",
]


@pytest.mark.parametrize("text", NAMED)
@pytest.mark.parametrize("rows", [1, 2])
def test_layers_together_score_as_layer_by_layer(vlm: VLM, text: str, rows: int) -> None:
    views = Views()
    vlm.generate(stack(ROWS[:rows]), None, observers=[views], max_new_tokens=1, driver="hooks")
    method = evictor(vlm, text)
    marked = method.queries(views.seen[0].layout)
    assert marked is not None
    picked = Picked.of(marked)
    held: list[EntriesView] = []
    for view in views.seen:
        assert isinstance(view.attention, ProjectedAttention)
        held.append(replace(view, attention=view.attention.of_queries(picked)))
    together = method.observe_together(held)
    assert len(together) == LAYERS
    for view, one in zip(views.seen, together, strict=True):
        alone = method.observe(view)
        assert one.layout is view.layout
        assert_close(one.score, alone.score)
        assert_close(one.strength, alone.strength)


def kept(vlm: VLM, text: str, **settings: Any) -> list[list[int]]:
    generation = vlm.generate(stack(ROWS), evictor(vlm, text), max_new_tokens=1, **settings)
    return [layer.kept.tolist() for record in generation.records for layer in record.layers]


def test_queries_that_take_too_much_memory_are_not_held(
    vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "tgvkv:retention=0.4"
    expected = kept(vlm, text)
    asked: list[int] = []
    method = type(evictor(vlm, text))
    original = method.observe_together

    def counting(self: Evictor, views: Sequence[EntriesView]) -> Any:
        asked.append(len(views))
        return original(self, views)

    monkeypatch.setattr(method, "observe_together", counting)
    # 2 rows x 11 tokens of the longer question, 4 heads x 16 numbers, 3 layers.
    numbers = 2 * 11 * 4 * 16 * LAYERS
    monkeypatch.setattr(prefill, "HELD_NUMBERS", numbers)
    assert kept(vlm, text) == expected
    monkeypatch.setattr(prefill, "HELD_NUMBERS", numbers - 1)
    assert kept(vlm, text) == expected
    assert asked == [LAYERS]


EVICTING = [
    "h2o:retention=0.4",
    "cake:retention=0.4;window=4;decode_kernel=3",
    "tgvkv-released:retention=0.4",
    "streamingllm:retention=0.4",
    "prefixkv:retention=0.4",
]


@pytest.mark.parametrize("batch", [slice(0, 1), slice(0, 2)], ids=["one", "padded"])
@pytest.mark.parametrize("text", EVICTING)
def test_one_entry_of_each_head_leaves_as_many_do(
    vlm: VLM, text: str, batch: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "keep_run": True, "driver": "hooks"}

    def left() -> list[list[list[int]]]:
        """Places of the entries that each layer holds, by row and head group."""
        generation = vlm.generate(stack(ROWS[batch]), evictor(vlm, text), **settings)
        return [
            [places[there].tolist() for places, there in zip(rows, valid, strict=True)]
            for one in generation.run.held.entries
            for rows, valid in zip(one.position, one.valid, strict=True)
        ]

    taken: list[str] = []
    for name in ("drop_victims", "drop_slot", "drop"):
        original = getattr(dropping.LayerEntries, name)

        def noted(*args: Any, _name: str = name, _original: Any = original) -> None:
            taken.append(_name)
            _original(*args)

        monkeypatch.setattr(dropping.LayerEntries, name, noted)
    quick = left()
    assert taken and "drop" not in taken
    taken.clear()
    monkeypatch.setattr(dropping, "_same", lambda numbers: False)
    assert left() == quick
    assert set(taken) == {"drop_victims"}
    taken.clear()
    monkeypatch.setattr(dropping.LayerEntries, "aligned", False)
    assert left() == quick
    assert set(taken) == {"drop"}


@pytest.mark.parametrize("first", [True, False])
def test_padding_that_does_not_come_first_is_remembered(first: bool) -> None:
    row = single_layout([1, 2, 2, 3], [Grid(1, 1, 2)])
    gaps = [0, 0, 1] if first else [0, 1, 0]
    layout = TokenLayout.stack([row, single_layout([*gaps, 3])])
    entries = LayerEntries(layout)
    assert entries.aligned is first
    assert torch.equal(entries.valid[:, 0], layout.real)
    entries.join(torch.tensor([[4], [2]]), torch.ones(2, 1, dtype=torch.bool), np.array([1, 1]))
    assert entries.aligned is first
    assert entries.valid[:, 0].tolist() == [[*row, True] for row in layout.real.tolist()]
    entries.join(torch.tensor([[5], [3]]), torch.tensor([[True], [False]]), np.array([1, 0]))
    assert not entries.aligned
    assert entries.valid[1, 0].tolist() == [*layout.real[1].tolist(), True, False]


@pytest.mark.parametrize(
    ("marked", "span"),
    [
        ([[0, 1, 1, 0], [0, 1, 1, 0]], slice(1, 3)),
        ([[0, 1, 1, 1], [0, 0, 1, 1]], slice(1, 4)),  # a shorter run at the end, padded in front
        ([[1, 1, 1, 0], [0, 1, 1, 0]], None),  # the shorter run is not at the end
        ([[0, 1, 1, 0], [1, 1, 0, 0]], None),
        ([[1, 0, 1, 1], [1, 0, 1, 1]], None),  # no run
        ([[0, 0, 0, 0], [0, 0, 0, 0]], None),
    ],
)
def test_a_run_of_positions_is_sliced(marked: list[list[int]], span: slice | None) -> None:
    mask = torch.tensor(marked, dtype=torch.bool)
    picked = Picked.of(mask)
    assert picked.span == span
    values = torch.arange(8.0).view(2, 1, 4, 1)
    rows = picked.rows(values)
    width = int(mask.sum(1).max())
    assert rows.shape == (2, 1, width, 1)
    for row in range(2):
        wanted = values[row, 0, mask[row], 0].tolist()
        assert rows[row, 0, width - len(wanted) :, 0].tolist() == wanted
        places = picked.place[row, mask[row]].tolist()
        assert places == list(range(width - len(wanted), width))


def test_as_many_layers_as_fit_into_a_block(vlm: VLM) -> None:
    views = Views()
    vlm.generate(ROWS[0], None, observers=[views], max_new_tokens=1, driver="hooks")
    attention = views.seen[0].attention
    assert isinstance(attention, ProjectedAttention)
    picked = Picked.of(views.seen[0].layout.question)
    one = attention.of_queries(picked)
    numbers = attention.heads * picked.index.shape[1] * attention.length
    assert one.layers_at_once == attention._most // numbers
