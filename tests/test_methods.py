"""Every registered method on the graph: picked up by itself, whatever is added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM, LightKV
from lightkv.catalogue import compressor, methods
from lightkv.contract.compressor import Compressor, Evictor
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnknownNameError, UnsupportedError
from tests.closeness import assert_close
from tests.graph.test_equivalence import SETTINGS, TOLERANCE, kept_masks, logits, oracle, worst
from tests.tiny import prompt, stack

ROWS = [prompt(1, 8), prompt(1, 12, seed=1), prompt(1, 6, seed=2)]

#: Settings that fit a decoder of five layers and a grid of 4 x 4; others need none.
OPTIONS: dict[str, dict[str, Any]] = {
    "lightkv": {"layers": (1, 2), "windows": (2, 1), "ratios": (0.5, 0.5)},
    "tome": {"layers": (1, 2), "ratios": (0.5, 0.5)},
    "pitome": {"layers": (1, 2), "ratios": (0.5, 0.5)},
    "tofu": {"layers": (1, 2), "ratios": (0.5, 0.5)},
    "sparsevlm": {"layers": (0, 1, 2), "kept": (12, 9, 6)},
    "sparsevlm-plus": {"layers": (0, 1, 2), "kept": (12, 9, 6), "heads": 2},
    "divprune": {"kept": 0.5},
    "visionzip": {"dominant": 6, "contextual": 3},
    "vispruner": {"tokens": 8},
    "hired": {"kept": 0.5},
    "cdpruner": {"tokens": 8},
    "hiprune": {"tokens": 8, "alpha": 0.6},
}

#: Reads words, which a model without a processor can't say.
NEEDS_TEXT_TOWER = {"cdpruner"}

#: Compress before a question is read; see tests/graph/test_repetition.py.
READ_TWICE = {"kvzip"}

#: Keeps a window that is longer than these prompts.
KEEPS_SHORT_PROMPTS = {"snapkv-window-only"}

METHODS = methods()
EVICTORS = [name for name, method in METHODS.items() if method.takes_retention]
ON_ANY_PROMPT = [name for name in EVICTORS if name not in READ_TWICE]


def built(name: str, retention: float = 0.5) -> Compressor:
    """A method at settings that fit the small model."""
    if name in EVICTORS:
        return METHODS[name].make(retention=retention)
    return METHODS[name].make(**OPTIONS.get(name, {}))


def keeps_changing(method: Compressor) -> bool:
    """True if what is cached after prefill is not what later steps see, entry by entry."""
    parts = [part for part in method.parts if isinstance(part, Evictor)]
    return any(
        not part.decode_policy().static
        or getattr(part, "merge", None) is not None
        or part.position_rule() == "reindex"
        for part in parts
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_alone_and_in_a_batch(tiny_vlm: VLM, name: str) -> None:
    method = built(name)
    if name in NEEDS_TEXT_TOWER:
        with pytest.raises(UnsupportedError, match="text tower"):
            tiny_vlm.generate(stack(ROWS), method, **SETTINGS)
        return
    if name in READ_TWICE:
        with pytest.raises(InputError, match="question-agnostic"):
            tiny_vlm.generate(stack(ROWS), method, **SETTINGS)
        return
    together = tiny_vlm.generate(stack(ROWS), method, **SETTINGS)
    if name not in KEEPS_SHORT_PROMPTS:
        assert any(record.achieved_retention < 1 for record in together.records)
    for number, row in enumerate(ROWS):
        alone = tiny_vlm.generate(row, method, **SETTINGS)
        assert alone.records[0].kv_bytes == together.records[number].kv_bytes
        assert_close(logits(together.output)[number], logits(alone.output)[0], TOLERANCE)


@pytest.mark.parametrize("name", ON_ANY_PROMPT)
def test_an_evictor_equals_masking(tiny_vlm: VLM, name: str) -> None:
    method = built(name)
    inputs: dict[str, Tensor] = stack(ROWS)
    ours = tiny_vlm.generate(inputs, method, **SETTINGS)
    if keeps_changing(method) or ours.records[0].layers[0].kept.dim() > 1:
        masks = kept_masks_of_all(tiny_vlm, ours.records)
        assert all(0 < kept <= length for kept, length in masks)
        return
    assert kept_masks(tiny_vlm, inputs, ours.records)
    assert worst(ours.output, oracle(tiny_vlm, inputs, ours.records)) < TOLERANCE


def kept_masks_of_all(vlm: VLM, records: Any) -> list[tuple[float, int]]:
    """Entries and lengths of every layer and row."""
    return [(layer.entries, layer.length) for record in records for layer in record.layers]


@pytest.mark.parametrize("name", ON_ANY_PROMPT)
def test_keeping_everything_changes_no_bit(tiny_vlm: VLM, name: str) -> None:
    inputs = prompt(1, 8)
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    ours = tiny_vlm.generate(inputs, built(name, 1.0), **SETTINGS)
    assert torch.equal(logits(ours.output), logits(plain))


FACTS = ModelFacts(layers=5, heads=4, kv_heads=2, hidden_size=64)


def test_compressors_are_read_from_text() -> None:
    text = "lightkv:layers=(1, 2);windows=(2, 1);ratios=(.5, .5)|random-vision:retention=.5"
    method = compressor(text, FACTS)
    assert len(method.parts) == 2
    assert method.parts[0] == LightKV((1, 2), (2, 1), (0.5, 0.5))
    assert compressor("tgvkv:retention=0.2", FACTS) == METHODS["tgvkv"].make(retention=0.2)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tgv-kv:retention=0.2", UnknownNameError),
        ("tgvkv:retention", InvalidValueError),
        ("tgvkv:colour=3;retention=0.2", InvalidValueError),
        ("tgvkv", InvalidValueError),
        ("", UnknownNameError),
    ],
)
def test_texts_that_name_no_compressor(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        compressor(text, FACTS)
