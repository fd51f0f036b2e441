"""The shipped native-resolution model: it loads, answers, and is compressed as others are."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import lightkv
from lightkv import VLM, Request
from lightkv.embedded.location import NATIVE_CHECKPOINT, WEIGHTS
from lightkv.embedded.publish import read_metrics
from lightkv.embedded.qwen.card import render_card
from lightkv.embedded.qwen.evaluate import Answerer, exact_match, swapped
from lightkv.embedded.qwen.items import KINDS, NativeItem, native_items
from tests.graph.methods import KeepSome
from tests.graph.test_equivalence import SETTINGS, TOLERANCE, logits, oracle, worst

pytestmark = pytest.mark.skipif(
    not (NATIVE_CHECKPOINT / WEIGHTS).is_file(),
    reason="the weights don't ship yet; `lightkv train-embedded --model qwen` trains them",
)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return lightkv.load("embedded-qwen")


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return read_metrics(NATIVE_CHECKPOINT)


def _inputs(vlm: VLM, asked: list[NativeItem]) -> dict[str, Tensor]:
    return vlm.encode(
        [
            Request(item.images, item.question, videos=(item.frames,) if item.frames else ())
            for item in asked
        ]
    )


def _small(kind: str) -> NativeItem:
    """Of some items the one with the shortest prompt."""
    return min(
        native_items(kind, 12),
        key=lambda item: (
            sum(image.width * image.height for image in (*item.images, *item.frames)),
            len(item.question),
        ),
    )


def test_weights_are_small_and_documented() -> None:
    assert (NATIVE_CHECKPOINT / "model.safetensors").stat().st_size <= 20e6
    config = json.loads((NATIVE_CHECKPOINT / "config.json").read_text())
    assert config["model_type"] == "qwen3_vl"
    text = config["text_config"]
    assert text["num_hidden_layers"] == 16
    assert text["num_key_value_heads"] < text["num_attention_heads"]


def test_card_is_written_from_the_metrics(metrics: dict[str, Any]) -> None:
    card = (NATIVE_CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert card == render_card(metrics, NATIVE_CHECKPOINT)
    assert tuple(metrics["kinds"]) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_measured(vlm: VLM, metrics: dict[str, Any], kind: str) -> None:
    """Eight items of another seed; the measured rates are in the card."""
    asked = native_items(kind, 8, seed=3)
    answerer = Answerer(vlm.model, vlm.processor, 8)
    expected = 8 * metrics["kinds"][kind]["full"]["share"]
    right = exact_match(answerer, asked)
    assert sum(right) >= expected - 3
    other = exact_match(answerer, swapped(asked))
    assert sum(other) <= 8 * metrics["kinds"][kind]["swapped"]["share"] + 4


PROMPTS = [["where"], ["moves"], ["read", "legend", "color"], ["order", "changes"]]


@pytest.mark.parametrize("kinds", PROMPTS, ids="+".join)
def test_keeping_everything_changes_nothing(vlm: VLM, kinds: list[str]) -> None:
    """One prompt and padded ones, pictures and videos."""
    inputs = _inputs(vlm, [_small(kind) for kind in kinds])
    plain = vlm.model.generate(**inputs, **SETTINGS)
    ours = vlm.generate(inputs, KeepSome(retention=2.0), **SETTINGS)
    assert torch.equal(logits(ours.output), logits(plain))


@pytest.mark.parametrize("kinds", PROMPTS, ids="+".join)
def test_eviction_equals_masking(vlm: VLM, kinds: list[str]) -> None:
    inputs = _inputs(vlm, [_small(kind) for kind in kinds])
    ours = vlm.generate(inputs, KeepSome(), **SETTINGS)
    assert any(record.achieved_retention < 0.8 for record in ours.records)
    assert worst(ours.output, oracle(vlm, inputs, ours.records)) < TOLERANCE
