"""Attention of a remote model: the request is shipped and unpacked here, as a server would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnsight.modeling.transformers import TransformersModel

from analysis.probing.probe import probe
from analysis.probing.remote import RemoteAttention, remote_attention
from lightkv import VLM, Request
from lightkv.check.tiny import ZOO
from lightkv.embedded import items
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from tests.closeness import assert_close

ITEM = items("read", 1)[0]


def wrapped(vlm: VLM, embedded: VLM) -> Any:
    """As nnsight ships it; a tokenizer is asked for, and takes no part."""
    return TransformersModel(vlm.model, tokenizer=embedded.processor.tokenizer)


@pytest.fixture(scope="module")
def inputs(embedded: VLM) -> dict[str, torch.Tensor]:
    return dict(embedded.encode([Request((ITEM.image,), ITEM.question)]))


@pytest.fixture(scope="module")
def shipped(embedded: VLM, inputs: dict[str, torch.Tensor]) -> RemoteAttention:
    return remote_attention(wrapped(embedded, embedded), inputs, layers=[5, 0], remote="local")


def test_a_shipped_request_reads_what_a_probe_reads(
    embedded: VLM, shipped: RemoteAttention
) -> None:
    names = ["text_attention_map", "block_sum"]
    data = probe(embedded, ITEM.image, ITEM.question, names, layers=[0, 5], heads="all")
    whole = torch.from_numpy(data.text_attention_map.values[0])  # (layers, heads, N, N)
    rows = shipped.layout.question[0]
    assert shipped.layers == (0, 5)
    assert shipped.attention.shape == (2, 4, int(rows.sum()), rows.shape[0])
    assert_close(shipped.attention, whole[:, :, rows], 1e-5)
    mass = data.block_sum.sel(block="TV").mean("head").values[0]
    assert_close(shipped.vision_mass, torch.from_numpy(mass), 1e-5)


def test_here_it_reads_the_same(
    embedded: VLM, inputs: dict[str, torch.Tensor], shipped: RemoteAttention
) -> None:
    here = remote_attention(wrapped(embedded, embedded), inputs, remote=False)
    assert here.layers == tuple(range(8))
    assert_close(here.attention[[0, 5]], shipped.attention, 1e-6)


@pytest.mark.parametrize("name", ["llava_next_mistral", "llava_onevision"])
def test_fewer_key_heads_and_other_decoders(embedded: VLM, name: str) -> None:
    vlm = ZOO[name].build("eager")
    vlm.model.config.get_text_config().sliding_window = None
    row = ZOO[name].rows(vlm.model.config)[0]
    read = remote_attention(wrapped(vlm, embedded), row, remote="local")
    with torch.no_grad():
        maps = vlm.model(**row, output_attentions=True).attentions
    expected = torch.stack([one[0] for one in maps])[:, :, read.layout.question[0]]
    assert_close(read.attention, expected, 1e-5)
    assert vlm.facts.kv_heads < vlm.facts.heads or name == "llava_next_mistral"


def test_what_can_not_be_read_is_refused_before_anything_is_sent(
    embedded: VLM, inputs: dict[str, torch.Tensor]
) -> None:
    model = wrapped(embedded, embedded)
    with pytest.raises(InvalidValueError, match="layers is 8; allowed: from 0 to 7"):
        remote_attention(model, inputs, layers=[8])
    with pytest.raises(InvalidValueError, match="remote is 'here'"):
        remote_attention(model, inputs, remote="here")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 prompts"):
        remote_attention(model, {name: torch.cat([one, one]) for name, one in inputs.items()})
    qwen = ZOO["qwen3_vl"].build()
    with pytest.raises(UnsupportedError, match=r"qwen3_vl_text can't be read remotely"):
        remote_attention(wrapped(qwen, embedded), inputs)


def test_a_window_that_a_prompt_exceeds_is_refused(embedded: VLM) -> None:
    vlm = ZOO["llava_next_mistral"].build()
    row = ZOO["llava_next_mistral"].rows(vlm.model.config)[0]
    text, tokens = vlm.model.config.get_text_config(), row["input_ids"].shape[1]
    model = wrapped(vlm, embedded)
    text.sliding_window = tokens
    assert remote_attention(model, row, remote=False).layout.length == tokens
    text.sliding_window = tokens - 1
    with pytest.raises(UnsupportedError, match=f"window of {tokens - 1} tokens"):
        remote_attention(model, row)
