"""What is captured is what the model computed, under any batching, and capture changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.probing.probe import load, probe_inputs, save
from lightkv import TGVKV, VLM, LightKV
from lightkv.contract.layout import TokenKind
from tests.closeness import SINGLE, assert_close
from tests.probing.models import BATCH, EVERYTHING, ROWS, eager

GENERATE: dict[str, Any] = {
    "max_new_tokens": 3,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}


@pytest.mark.parametrize("heads", ["mean", "all"])
def test_captured_attention_is_that_of_the_eager_model(tiny_vlm: VLM, heads: Any) -> None:
    data = probe_inputs(tiny_vlm, [BATCH], ["attention_map", "column_sum", "hidden"], heads=heads)
    full = eager(tiny_vlm, BATCH)
    for row, inputs in enumerate(ROWS):
        length = inputs["input_ids"].shape[1]
        for layer, attention in enumerate(full.attentions):
            expected = attention[row, :, -length:, -length:].numpy()
            expected = expected.mean(0) if heads == "mean" else expected
            one = data.isel(sample=row, layer=layer, query=slice(length), key=slice(length))
            assert_close(one.attention_map, expected)
            assert_close(one.column_sum.sel(source="all"), expected.sum(-2))
        hidden = full.hidden_states[2][row, -length:].numpy()
        one = data.hidden.isel(sample=row, layer=1, key=slice(length))
        assert_close(one, hidden)
        beyond = data.attention_map.isel(sample=row, query=slice(length, None))
        assert beyond.isnull().all()


def test_blocks_columns_and_entropy_follow_from_the_map(everything: xr.Dataset) -> None:
    for row in range(3):
        one = everything.isel(sample=row, key=slice(int(everything.length[row])))
        one = one.isel(query=slice(int(everything.length[row])))
        attention, kind = one.attention_map.values, one.key_kind.values
        for block, queries, keys in (("TV", "text", "vision"), ("VS", "vision", "system")):
            cut = attention[:, kind == queries][:, :, kind == keys]
            assert_close(one.block_sum.sel(block=block), cut.sum((1, 2)))
            pairs = np.tril(np.ones(attention.shape[1:]))[kind == queries][:, kind == keys]
            assert_close(one.block_mean.sel(block=block), cut.sum((1, 2)) / pairs.sum())
        rows = one.block_sum.sel(block=["TV", "TT", "TS"]).sum("block")
        assert_close(rows, (kind == "text").sum())
        entropy = -(attention * np.log(np.where(attention > 0, attention, 1))).sum(-1)
        assert_close(one.attention_entropy, entropy)


def test_text_weights_and_scores_are_those_that_tgvkv_ranks_by(everything: xr.Dataset) -> None:
    one = everything.isel(sample=0, layer=2, key=slice(26), query=slice(26))
    attention, kind = one.attention_map.values, one.key_kind.values
    text = np.flatnonzero(kind == "text")
    inner = attention[np.ix_(text, text)]
    weight = inner.sum(0) / np.arange(len(text), 0, -1)
    weight = weight / weight.sum()
    assert_close(one.text_weight.values[text], weight)
    assert np.isnan(one.text_weight.values[kind != "text"]).all()
    vision = np.flatnonzero(kind == "vision")
    score = weight @ attention[np.ix_(text, vision)]
    assert_close(one.twr_score.values[vision], score)
    assert_close(one.twr_score.values[text], inner.sum(0))


@pytest.mark.parametrize("heads", [[2], [3, 0]])
def test_some_heads_are_those_of_all(tiny_vlm: VLM, heads: list[int]) -> None:
    wanted = ["attention_map", "block_mean", "twr_score", "hidden"]
    some = probe_inputs(tiny_vlm, [BATCH], wanted, heads=heads)
    every = probe_inputs(tiny_vlm, [BATCH], wanted, heads="all")
    assert some["head"].values.tolist() == heads and every["head"].values.tolist() == [0, 1, 2, 3]
    for name in wanted:
        expected = every[name].sel(head=heads) if "head" in every[name].dims else every[name]
        assert_close(some[name], expected, note=name)
    assert some.attrs["heads"] == ", ".join(map(str, heads)) and every.attrs["heads"] == "all"


def test_capturing_changes_no_bit_of_the_output(tiny_vlm: VLM) -> None:
    from analysis.probing.capture import Capture, check_layers
    from analysis.probing.quantities import quantities

    wanted = quantities(EVERYTHING)
    layout = tiny_vlm.layout(BATCH)
    layers = check_layers(tiny_vlm.facts, None, wanted)
    capture = Capture(wanted, layers, "mean", tiny_vlm.model, layout.prompt_lengths.tolist())
    probed = tiny_vlm.generate(BATCH, observers=(capture,), **GENERATE).output
    plain = tiny_vlm.model.generate(**BATCH, **GENERATE)
    assert torch.equal(probed.sequences, plain.sequences)
    assert all(torch.equal(a, b) for a, b in zip(probed.logits, plain.logits, strict=True))


def test_batches_equal_single_prompts(tiny_vlm: VLM, everything: xr.Dataset) -> None:
    alone = probe_inputs(tiny_vlm, ROWS, EVERYTHING)
    assert set(alone.data_vars) == set(EVERYTHING)
    for name in EVERYTHING:
        if name != "logit_lens":
            assert_close(alone[name], everything[name], each="layer", note=name)
    # Words that are equally likely up to rounding may change places, also with the next one.
    chance = everything["logit_lens_probability"].values
    apart = chance[..., :-1] - chance[..., 1:] > 100 * SINGLE * np.nanmax(chance)
    clear = apart.copy()
    clear[..., 1:] &= apart[..., :-1]
    same = (alone["logit_lens"] == everything["logit_lens"]).values[..., :-1]
    assert same[clear].all() and clear.sum() > 0.9 * np.isfinite(chance[..., :-1]).sum()


@pytest.mark.parametrize("heads", ["mean", "all"])
def test_a_dataset_read_back_is_identical(
    tiny_vlm: VLM, everything: xr.Dataset, tmp_path: Path, heads: Any
) -> None:
    data = everything
    if heads == "all":
        data = probe_inputs(tiny_vlm, [BATCH], ["block_sum", "text_weight"], heads=heads)
    save(data, tmp_path / "data.nc")
    again = load(tmp_path / "data.nc")
    assert again.identical(data)
    for name, variable in data.variables.items():
        assert again.variables[name].dtype == variable.dtype, name
        assert again.variables[name].attrs == variable.attrs


def test_every_quantity_says_what_it_is(everything: xr.Dataset) -> None:
    for name in EVERYTHING:
        attributes = everything[name].attrs
        assert attributes["units"] and len(attributes["definition"]) > 20
        assert everything[name].dims[:2] == ("sample", "layer")
    assert list(everything.key_kind.values[0, :4]) == ["system"] * 3 + ["vision"]
    assert everything.key_row.values[0, 3] == 0 and everything.key_col.values[0, 4] == 1


def test_the_page_of_quantities_says_what_datasets_say(everything: xr.Dataset) -> None:
    page = (Path(__file__).parents[2] / "docs" / "quantities.md").read_text(encoding="utf-8")
    rows = [line.replace("\\|", "|") for line in page.splitlines()]
    for name in EVERYTHING:
        attributes = everything[name].attrs
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {attributes['units']} | {attributes['definition']} |")


def test_a_compressed_model_is_probed_as_the_method_left_it(tiny_vlm: VLM) -> None:
    both = LightKV((1,), (2,), (0.5,)) | TGVKV(retention=0.4)
    wanted = ["kept", "merged_into", "sources", "accumulated_attention", "hidden_pooled"]
    data = probe_inputs(tiny_vlm, [BATCH], wanted, compressor=both)
    records = tiny_vlm.generate(BATCH, both, max_new_tokens=1).records
    assert data.attrs["method"] == str(both)
    for row, record in enumerate(records):
        one = data.isel(sample=row, key=slice(record.layout.length))
        for layer in record.layers:
            kept = np.flatnonzero(one.kept.isel(layer=layer.layer).values)
            assert kept.tolist() == layer.kept.tolist()
        assert (one.sources.isel(layer=0) == 1).all()
        merged = one.isel(layer=3)
        assert int(merged.sources.sum()) == record.layout.length
        gone = merged.sources.values == 0
        assert gone.sum() == record.layout.length - record.layers[3].length
        assert np.isnan(merged.accumulated_attention.values[gone]).all()
        assert np.isfinite(merged.accumulated_attention.values[~gone]).all()
        assert set(merged.merged_into.values[gone]) <= set(np.flatnonzero(~gone))


def test_the_input_of_the_first_layer_has_hidden_states(tiny_vlm: VLM) -> None:
    data = probe_inputs(tiny_vlm, [BATCH], ["hidden", "effective_rank"], layers=[2, -1])
    assert data.layer.values.tolist() == [-1, 2]
    embeddings = tiny_vlm.model.get_input_embeddings()(ROWS[0]["input_ids"])[0]
    kind = data.key_kind.values[0, :26]
    ours = data.hidden.sel(layer=-1).values[0, :26][kind == "text"]
    np.testing.assert_array_equal(ours, embeddings.detach().numpy()[kind == "text"])


def test_local_similarity_and_divergence_by_hand(everything: xr.Dataset) -> None:
    one = everything.isel(sample=0, layer=1, key=slice(26))
    states, kind = one.hidden.values, one.key_kind.values
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    cosine = unit @ unit.T
    for k in (1, 5):
        expected = []
        for token in range(26):
            near = [j for j in range(26) if 0 < abs(j - token) <= k and kind[j] == kind[token]]
            expected.append(cosine[token, near].mean())
        assert_close(one.local_similarity.sel(k=k), expected)
    vision = cosine[3:19, 3:19][np.triu_indices(16, 1)]
    assert_close(
        one.feature_divergence.sel(windows=1),
        np.quantile(1 - vision, (0.05, 0.25, 0.5, 0.75, 0.95)),
        SINGLE,
    )


def test_layouts_without_processor_and_kinds(everything: xr.Dataset) -> None:
    assert set(np.unique(everything.key_kind)) == {"", "system", "vision", "text"}
    assert everything.attrs["model"] == "tiny-llava" and len(TokenKind) == 5
