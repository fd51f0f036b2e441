"""Every family under its fused kernel: eager attention, unchanged output, any batching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from analysis.probing.capture import Capture, check_layers
from analysis.probing.probe import probe_inputs
from analysis.probing.quantities import QUANTITIES, quantities
from lightkv import VLM
from lightkv.check.subject import difference
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from tests.closeness import assert_close
from tests.probing.models import eager

GENERATE: dict[str, Any] = {
    "max_new_tokens": 3,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}
RELATIVE = 1e-5
WINDOWED = {"feature_divergence", "merge_error", "merge_agreement"}
"""Quantities whose default windows some of the tiny grids can't be cut into."""


@pytest.fixture(scope="module", params=list(ZOO))
def vlm(request: pytest.FixtureRequest) -> Iterator[VLM]:
    yield ZOO[request.param].build("sdpa")


def test_captured_attention_is_that_of_the_eager_model(vlm: VLM) -> None:
    rows = ZOO[vlm.name].rows(vlm.model.config)
    batch = stack(rows)
    data = probe_inputs(vlm, [batch], ["attention_map", "column_sum"], heads="all")
    full = eager(vlm, batch)
    assert len(full.attentions) == data.sizes["layer"]
    for number, row in enumerate(rows):
        length = row["input_ids"].shape[1]
        for layer, attention in enumerate(full.attentions):
            expected = attention[number, :, -length:, -length:].numpy()
            one = data.isel(sample=number, layer=layer, query=slice(length), key=slice(length))
            assert_close(one.attention_map, expected, note=(number, layer))
            columns = one.column_sum.sel(source="all")
            assert_close(columns, expected.sum(-2), note=(number, layer))


def test_capturing_changes_no_bit_of_the_output(vlm: VLM) -> None:
    batch = stack(ZOO[vlm.name].rows(vlm.model.config))
    wanted = quantities([name for name in QUANTITIES if name not in WINDOWED])
    lengths = vlm.layout(batch).prompt_lengths.tolist()
    layers = check_layers(vlm.facts, None, wanted)
    capture = Capture(wanted, layers, "mean", vlm.model, lengths)
    probed = vlm.generate(batch, observers=(capture,), **GENERATE).output
    plain = vlm.model.generate(**batch, **GENERATE)
    assert torch.equal(probed.sequences, plain.sequences)
    steps = list(zip(probed.logits, plain.logits, strict=True))
    assert torch.equal(*steps[0])
    if vlm.quirks.has_windows:
        # What decodes under an observer masks what has left a window, HuggingFace drops it.
        assert all(difference(a, b) <= RELATIVE for a, b in steps[1:])
    else:
        assert all(torch.equal(a, b) for a, b in steps[1:])


def test_batches_equal_single_prompts(vlm: VLM) -> None:
    rows = ZOO[vlm.name].rows(vlm.model.config)
    wanted = ["block_sum", "accumulated_attention", "attention_information", "text_weight", "keys"]
    together = probe_inputs(vlm, [stack(rows)], wanted)
    alone = probe_inputs(vlm, rows, wanted)
    for name in wanted:
        assert_close(together[name], alone[name], each="layer", note=name)
