"""Features of the vision tower lie on the tokens that the model makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv.catalogue import method
from lightkv.check.tiny import ZOO
from lightkv.contract.layout import TokenLayout
from lightkv.pruning.hired import HiRED
from lightkv.pruning.visionzip import VisionZip
from lightkv.pruning.vispruner import VisPruner
from lightkv.vlm import VLM
from tests.closeness import assert_close

TILED = ["llava_next", "llava_next_mistral"]


def embedded_tokens(vlm: VLM, inputs: dict[str, Any]) -> Tensor:
    """(B, N, D) what the decoder is given."""
    seen: list[Tensor] = []
    hook = vlm.model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        vlm.model(**vlm.model_inputs(inputs))
    hook.remove()
    return seen[0]


def patches(layout: TokenLayout) -> Tensor:
    """(B, N) bool: vision tokens that are no line break."""
    widths = torch.zeros_like(layout.col)
    for row, grids in enumerate(layout.grids):
        columns = torch.tensor([grid.cols for grid in grids])
        widths[row] = columns[layout.segment[row].clamp_min(0)]
    return layout.vision & (layout.col < widths)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("name", ["llava", *TILED])
def test_features_are_what_the_projector_reads(name: str, number: int) -> None:
    vlm = ZOO[name].build()
    inputs = ZOO[name].rows(vlm.model.config)[number]
    layout = vlm.layout(inputs)
    wanted = frozenset({"features"})
    features = vlm.family.vision_features(vlm.model, inputs, layout, wanted).features
    assert features is not None
    with torch.no_grad():
        projected = vlm.model.model.multi_modal_projector(features)
    cells = patches(layout)
    assert_close(projected[cells], embedded_tokens(vlm, inputs)[cells])
    assert bool((features[~cells] == 0).all())
    assert name == "llava" or int((layout.vision & ~cells).sum()) > 0


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("name", ["llava", *TILED])
def test_a_tile_is_one_pass_of_the_tower(name: str, number: int) -> None:
    """Other pixels in one tile change the features of its patches and of no others."""
    vlm = ZOO[name].build()
    inputs = ZOO[name].rows(vlm.model.config)[number]
    layout = vlm.layout(inputs)
    wanted = frozenset({"features", "tile"})
    before = vlm.family.vision_features(vlm.model, inputs, layout, wanted)
    assert before.features is not None
    assert before.tile is not None
    assert torch.equal(before.tile >= 0, patches(layout))
    seen = []
    for number in range(len(inputs["pixel_values"].flatten(0, -4))):
        pixels = inputs["pixel_values"].clone()
        pixels.flatten(0, -4)[number] += 1
        after = vlm.family.vision_features(
            vlm.model, {**inputs, "pixel_values": pixels}, layout, wanted
        ).features
        assert after is not None
        changed = (after != before.features).any(-1)
        # Tiles that only fill up a shorter image are not read.
        if changed.any():
            seen.append(int(before.tile[changed][0]))
            assert torch.equal(changed, before.tile == seen[-1])
    assert seen == list(range(int(before.tile.max()) + 1))


def test_attention_of_the_tower_is_what_the_tower_computes() -> None:
    """Received in every layer up to the one read, and paid by the class token."""
    vlm = ZOO["llava"].build("eager")
    vlm.model.config.vision_feature_layer = -2
    inputs = ZOO["llava"].rows(vlm.model.config)[0]
    layout = vlm.layout(inputs)
    names = frozenset({"received", "cls_attention", "first_attention"})
    read = vlm.family.vision_features(vlm.model, inputs, layout, names)
    with torch.no_grad():
        maps = vlm.model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    attentions = maps.attentions[:-1]  # the last layer is not read
    assert read.received is not None
    assert read.cls_attention is not None
    assert read.first_attention is not None
    expected = torch.stack([layer.mean((1, 2))[0, 1:] for layer in attentions], -1)
    assert_close(read.received[layout.vision], expected)
    assert_close(read.cls_attention[layout.vision], attentions[-1][0, :, 0, 1:].sum(0))
    assert_close(read.first_attention[layout.vision], attentions[0][0, :, 0, 1:].sum(0))
    assert bool((read.received[~layout.vision] == 0).all())


def test_the_last_layer_is_read_as_if_it_had_one_head() -> None:
    vlm = ZOO["llava"].build()
    inputs = ZOO["llava"].rows(vlm.model.config)[0]
    layout = vlm.layout(inputs)
    names = frozenset({"last_attention", "last_keys"})
    read = vlm.family.vision_features(vlm.model, inputs, layout, names)
    assert read.last_attention is not None
    assert read.last_keys is not None
    tower = vlm.model.model.vision_tower
    layer = getattr(tower, "vision_model", tower).encoder.layers[-1]
    with torch.no_grad():
        states = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
        normed = layer.layer_norm1(states)[0]
        queries, keys = layer.self_attn.q_proj(normed), layer.self_attn.k_proj(normed)
    assert_close(read.last_keys[layout.vision], keys[1:])
    weights = torch.softmax(queries[0] @ keys.T / keys.shape[-1] ** 0.5, -1)
    assert_close(read.last_attention[layout.vision], weights[1:])


@pytest.mark.parametrize("name", TILED)
def test_pruners_select_tile_by_tile_or_image_by_image(name: str) -> None:
    vlm = ZOO[name].build()
    inputs = ZOO[name].rows(vlm.model.config)[0]
    layout = vlm.layout(inputs)
    features = vlm.family.vision_features(vlm.model, inputs, layout, frozenset({"tile"}))
    assert features.tile is not None
    sizes = features.tile[layout.vision & (features.tile >= 0)].bincount()
    rest = int(layout.real.sum() - sizes.sum())
    for pruner in (VisPruner(tokens=5), VisionZip(dominant=3, contextual=2)):
        for per, kept in (("tile", sizes.clamp_max(5).sum()), ("image", 5)):
            method = dataclasses.replace(pruner, per=per, positions="keep")
            record = vlm.generate(inputs, method, max_new_tokens=1, do_sample=False).records[0]
            assert record.prefill_lengths[0] == rest + int(kept)


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize(
    "pruner",
    [HiRED(kept=0.5, positions="keep"), VisionZip(dominant=9, contextual=3, positions="keep")],
    ids=str,
)
def test_pruners_by_class_attention_run_on_tiles(name: str, pruner: Any) -> None:
    vlm = ZOO[name].build()
    inputs = ZOO[name].rows(vlm.model.config)[0]
    together = pruner | method("random", 0.5)
    record = vlm.generate(inputs, together, max_new_tokens=2, do_sample=False).records[0]
    prompt = int(vlm.layout(inputs).real.sum())
    assert record.prefill_lengths[0] < prompt
    assert record.achieved_retention < record.prefill_lengths[0] / prompt


def test_features_are_repeated_for_beams() -> None:
    vlm = ZOO["llava"].build()
    row = ZOO["llava"].rows(vlm.model.config)[0]
    settings = {"max_new_tokens": 3, "do_sample": False}
    pruner = HiRED(kept=0.5)
    alone = vlm.generate(row, pruner, num_beams=1, **settings)
    beams = vlm.generate(row, pruner, num_beams=2, num_return_sequences=2, **settings)
    assert len(beams.records) == 2
    assert {record.kv_bytes for record in beams.records} == {alone.records[0].kv_bytes}
