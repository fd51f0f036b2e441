"""Eviction while decoding: bookkeeping, masks and slots stay right as the cache changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.contract.decoding import DecodePolicy, DecodeView
from tests.closeness import assert_close
from tests.graph.methods import KeepSome
from tests.graph.oracle import MaskedRun
from tests.graph.test_equivalence import BATCHES, SETTINGS, TOLERANCE, kept_masks, worst
from tests.tiny import prompt, stack


@dataclass(frozen=True)
class DropOldest(DecodePolicy):
    """One entry a step: the oldest that is left, in every second row only if ``uneven``."""

    uneven: bool = False

    def evict(self, view: DecodeView) -> Tensor:
        oldest = torch.where(view.valid, view.position, 10**6).argmin(-1, keepdim=True)
        leaving = torch.zeros_like(view.valid).scatter(-1, oldest, True)
        if self.uneven:
            leaving[1::2] = False
        return leaving


class OldestHidden(MaskedRun):
    """Every step hides one more of the oldest prompt keys."""

    uneven = False

    def cached(self, number: int, generated: int) -> Tensor:
        visible = super().cached(number, generated)
        for row in range(visible.shape[0]):
            if self.uneven and row % 2:
                continue
            for _ in range(generated - 1):
                visible[row, int(visible[row].int().argmax())] = False
        return visible


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("retention", [0.5, 2.0], ids=["half", "all"])
def test_evicting_while_decoding_equals_masking(
    tiny_vlm: VLM, batch: str, uneven: bool, retention: float
) -> None:
    inputs = stack(BATCHES[batch])
    method = KeepSome(retention=retention, decode=DropOldest(uneven))
    ours = tiny_vlm.generate(inputs, method, **SETTINGS)
    masked = OldestHidden(
        tiny_vlm.model,
        tiny_vlm.model.get_decoder().layers,
        kept_masks(tiny_vlm, inputs, ours.records),
    )
    masked.uneven = uneven
    assert worst(ours.output, masked.generate(inputs, **SETTINGS)) < TOLERANCE


@dataclass(frozen=True)
class LookOnly(DecodePolicy):
    """Collects what it is shown and evicts nothing."""

    seen: list[DecodeView]

    @property
    def needs_attention(self) -> bool:
        return True

    def evict(self, view: DecodeView) -> None:
        self.seen.append(view)


def test_policies_see_the_newest_tokens_attention(tiny_vlm: VLM) -> None:
    inputs = stack(BATCHES["padded"])
    policy = LookOnly([])
    settings = {**SETTINGS, "max_new_tokens": 3}
    tiny_vlm.generate(inputs, KeepSome(retention=2.0, decode=policy), **settings)
    eager = tiny_vlm.model.config._attn_implementation
    tiny_vlm.model.set_attn_implementation("eager")
    plain = tiny_vlm.model.generate(**inputs, **settings, output_attentions=True)
    tiny_vlm.model.set_attn_implementation(eager)
    layers = tiny_vlm.facts.layers
    for step, attentions in enumerate(plain.attentions[1:]):
        for layer, attention in enumerate(attentions):
            view = policy.seen[step * layers + layer]
            assert view.layer == layer
            assert view.attention is not None
            expected = attention[:, :, 0].mean(1)
            assert_close(view.attention[:, 0], expected)
            assert view.seen.tolist() == (inputs["attention_mask"].sum(1) + step + 1).tolist()


def test_freed_slots_are_given_back(tiny_vlm: VLM) -> None:
    """A layer that drops one entry a step has a cache of constant length."""
    inputs = prompt(1, 5)
    lengths: list[int] = []
    layer = tiny_vlm.model.get_decoder().layers[2]

    def note(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        keys = kwargs["past_key_values"].layers[2].keys
        lengths.append(0 if keys is None else int(keys.shape[2]))

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    tiny_vlm.generate(inputs, KeepSome(decode=DropOldest()), **SETTINGS)
    handle.remove()
    assert len(set(lengths[1:])) == 1
