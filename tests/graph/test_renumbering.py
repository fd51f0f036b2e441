"""A re-indexed cache equals one that holds unrotated keys and rotates them by place at each step.

The oracle decodes by hand on the stock model, with angles of its own in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from lightkv import VLM, Request
from lightkv.catalogue import method
from lightkv.check.tiny import ZOO
from lightkv.contract.decoding import Grow
from lightkv.embedded import items
from lightkv.errors import UnsupportedError
from tests.closeness import assert_close, distance
from tests.tiny import prompt, stack

STEPS = 9
SINKS = 4


def angles(config: Any, positions: Tensor) -> Tensor:
    """(K, d) float64 of rotary positions (K,)."""
    text = config.get_text_config()
    width = text.hidden_size // text.num_attention_heads
    theta = text.rope_parameters["rope_theta"]
    speed = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return (positions.double()[:, None] * speed).repeat(1, 2)


def turn(keys: Tensor, angle: Tensor) -> Tensor:
    """Keys (1, H, K, d) turned by (K, d)."""
    half = keys.shape[-1] // 2
    other = torch.cat([-keys[..., half:], keys[..., :half]], -1)
    return keys * angle.cos() + other * angle.sin()


def by_hand(vlm: VLM, inputs: dict[str, Tensor], recent: int, hold: bool) -> Tensor:
    """(STEPS, V) logits: sinks and ``recent`` entries, positions within the cache."""
    model, config = vlm.model, vlm.model.config
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
    length = inputs["input_ids"].shape[1]
    kept = [*range(SINKS), *range(length - recent, length)]
    old = angles(config, torch.tensor(kept))
    raw, values = [], []
    for layer in out.past_key_values.layers:
        raw.append(turn(layer.keys[:, :, kept].double(), -old))
        values.append(layer.values[:, :, kept])
    logits = [out.logits[0, -1]]
    for _ in range(STEPS - 1):
        count = raw[0].shape[2]
        now = angles(config, torch.arange(count))
        cache = DynamicCache()
        for number, (keys, value) in enumerate(zip(raw, values, strict=True)):
            cache.update(turn(keys, now).float(), value, number)
        with torch.no_grad():
            out = model(
                input_ids=logits[-1].argmax()[None, None],
                position_ids=torch.tensor([[count]]),
                past_key_values=cache,
                use_cache=True,
            )
        logits.append(out.logits[0, -1])
        turned_by = angles(config, torch.tensor([count]))
        for number, layer in enumerate(cache.layers):
            new = turn(layer.keys[:, :, -1:].double(), -turned_by)
            raw[number] = torch.cat([raw[number], new], 2)
            values[number] = layer.values
            if hold:
                stay = [*range(SINKS), *range(SINKS + 1, count + 1)]
                raw[number], values[number] = raw[number][:, :, stay], values[number][:, :, stay]
    return torch.stack(logits)


@pytest.mark.parametrize("hold", [True, False], ids=["sliding", "growing"])
def test_streamingllm_equals_rotating_by_place(tiny_vlm: VLM, hold: bool) -> None:
    inputs = prompt(1, 13)
    length = inputs["input_ids"].shape[1]
    ours = method("streamingllm-reindexed", 0.5)
    if not hold:
        ours = replace(ours, decode=Grow())
    settings = {"do_sample": False, "max_new_tokens": STEPS, "min_new_tokens": STEPS}
    output = tiny_vlm.generate(
        inputs, ours, **settings, output_scores=True, return_dict_in_generate=True
    )
    kept = len(output.records[0].layers[0].kept)
    assert {len(one.kept) for one in output.records[0].layers} == {length // 2}
    expected = by_hand(tiny_vlm, inputs, kept - SINKS, hold)
    # The end token is never chosen here: it is masked by min_new_tokens only.
    logits = torch.stack([step[0] for step in output.output.scores])
    finite = logits.isfinite()
    assert_close(logits[finite], expected[finite])
    kept_positions = tiny_vlm.generate(
        inputs,
        replace(ours, positions="keep"),
        **settings,
        output_scores=True,
        return_dict_in_generate=True,
    )
    other = torch.stack([step[0] for step in kept_positions.output.scores])
    assert distance(logits[finite], other[finite]) > 1e-3


def test_rows_of_a_batch_are_renumbered_apart(tiny_vlm: VLM) -> None:
    rows = [prompt(1, 8), prompt(1, 14, seed=1)]
    ours = method("streamingllm-reindexed", 0.5)
    settings = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
    together = tiny_vlm.generate(stack(rows), ours, **settings)
    for number, row in enumerate(rows):
        alone = tiny_vlm.generate(row, ours, **settings)
        assert together.output[number, -5:].tolist() == alone.output[0, -5:].tolist()


def test_a_conversation_goes_on_at_the_places_of_the_cache(embedded: VLM) -> None:
    from lightkv.protocols import ask_under

    ours = method("streamingllm-reindexed", 0.9)
    requests = [Request((item.image,), item.question) for item in items("color", 2)]
    together = ask_under("question-agnostic", embedded, requests, ours, max_new_tokens=4)
    alone = [
        ask_under("question-agnostic", embedded, [one], ours, max_new_tokens=4)[0]
        for one in requests
    ]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]


def test_a_cache_with_positions_on_several_axes_is_refused() -> None:
    vlm = ZOO["qwen2_5_vl"].build()
    row = ZOO["qwen2_5_vl"].rows(vlm.model.config)[0]
    with pytest.raises(UnsupportedError, match="positions='keep'"):
        vlm.generate(row, method("streamingllm-reindexed", 0.5), max_new_tokens=2)


def test_heads_with_entries_of_their_own_are_refused(tiny_vlm: VLM) -> None:
    ours = replace(method("ada-kv", 0.5, window=4), positions="reindex")
    with pytest.raises(UnsupportedError, match="heads"):
        tiny_vlm.generate(prompt(1, 12), ours, max_new_tokens=2)
