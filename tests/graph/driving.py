"""Runs whose results are compared bit for bit, whatever carried them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv import VLM
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import LightKVError
from tests.tiny import prompt

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 4,
    "do_sample": False,
    "output_logits": True,
    "output_hidden_states": True,
    "return_dict_in_generate": True,
}

ROWS = [prompt(1, 8), prompt(1, 12, seed=1), prompt(2, 6, seed=2)]


def left_by(vlm: VLM, inputs: dict[str, Tensor], driver: str, **settings: Any) -> Any:
    """Everything that a run leaves, or the words of its refusal."""
    try:
        made = vlm.generate(inputs, driver=driver, keep_run=True, **settings)
    except LightKVError as error:
        return f"{type(error).__name__}: {error}"
    held = made.run.held
    tail = held.continue_with(torch.ones(held.entries[0].valid.shape[0], 1, dtype=torch.bool))
    layers = held.cache.layers
    records = [
        (one.length, one.kept, one.entries, one.requested, one.padded, one.provenance is None)
        for record in made.records
        for one in record.layers
    ]
    return {
        "output": dict(made.output),
        "cache": [(layer.keys, layer.values) for layer in layers],
        "entries": [(one.position, one.valid, one.score, one.rotated) for one in held.entries],
        "records": records,
        "bytes": [(one.kv_bytes, one.padding_bytes, one.full_kv_bytes) for one in made.records],
        "next": tail,
    }


def assert_equal(ours: Any, theirs: Any, path: str = "") -> None:
    assert type(ours) is type(theirs), path
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            if key != "past_key_values":
                assert_equal(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), path
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(one, other, f"{path}/{number}")
    else:
        assert ours == theirs, path


class Watch:
    """Keeps what it is shown of all layers."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(-1, facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(1, facts.layers)

    def see(self, view: LayerView) -> None:
        rows = None
        if view.layer >= 1:
            rows = view.read_attention().column_sums(view.layout.real)
        self.seen.append((view.layer, view.hidden.clone(), rows))
