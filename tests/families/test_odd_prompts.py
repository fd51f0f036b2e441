"""Prompts that no processor writes: masks with holes, padding on the right, marks as words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.check.tiny.parts import IMAGE, VIDEO
from lightkv.contract.compressor import Compressor
from lightkv.contract.interventions import Knockout
from lightkv.contract.layout import Grid, TokenKind
from lightkv.errors import InputError, UnsupportedError
from lightkv.families import family_of
from tests.graph.methods import KeepSome, MergeSome
from tests.graph.oracle import MaskedRun
from tests.tiny import prompt

TOLERANCE = 1e-5
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 4,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}


def logits(output: Any) -> Tensor:
    return torch.stack(output.logits, 1)


def worst(ours: Any, theirs: Any) -> float:
    a, b = logits(ours), logits(theirs)
    return float((a - b).abs().max() / b.abs().max())


def with_holes(inputs: dict[str, Tensor], *places: tuple[int, int]) -> dict[str, Tensor]:
    """The same batch with some tokens masked."""
    mask = inputs["attention_mask"].clone()
    for place in places:
        mask[place] = 0
    return {**inputs, "attention_mask": mask}


def fuyu_holes(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some of the line breaks inside the pictures masked, and a word before them."""
    real, vision = inputs["attention_mask"].bool(), inputs["input_ids"] == IMAGE
    places = []
    for row in range(len(real)):
        slots = vision[row].nonzero()[:, 0]
        inside = [int(s) for s in slots if not vision[row, s + 1]]
        places += [(row, inside[0] + 1), (row, inside[-1] + 1), (row, int(slots[0]) - 1)]
    return with_holes(inputs, *places)


def test_masked_tokens_inside_a_picture_stay_masked() -> None:
    vlm = ZOO["fuyu"].build()
    inputs = fuyu_holes(stack(ZOO["fuyu"].rows(vlm.model.config)))
    layout = vlm.layout(inputs)
    assert torch.equal(layout.real, inputs["attention_mask"].bool())
    assert bool((layout.kind == TokenKind.SEPARATOR).any())
    plain = vlm.model.generate(**inputs, **SETTINGS)
    everything = vlm.generate(inputs, KeepSome(retention=2.0), **SETTINGS)
    assert worst(everything.output, plain) < TOLERANCE


def masked(vlm: VLM, inputs: dict[str, Tensor], records: Any, stage: int | None) -> Any:
    """The full-length model that sees what the records say was kept."""
    real = inputs["attention_mask"].bool()
    places = [row.nonzero()[:, 0] for row in real]
    visible = []
    for layer in range(vlm.facts.layers):
        seen = torch.zeros_like(real)
        for row, record in enumerate(records):
            seen[row, places[row][record.layers[layer].kept]] = True
        visible.append(seen)
    layers = vlm.model.get_decoder().layers
    if stage is None:
        return MaskedRun(vlm.model, layers, visible).generate(inputs, **SETTINGS)
    survivors, weights = torch.zeros_like(real), torch.zeros(*real.shape, real.shape[1])
    for row, record in enumerate(records):
        merge = record.layers[-1].provenance
        survivors[row, places[row][merge.index[0]]] = True
        weights[row, : merge.new_length, places[row]] = merge.matrix()[0]
    prefill = [real if number <= stage else survivors for number in range(vlm.facts.layers)]
    run = MaskedRun(vlm.model, layers, visible, prefill, {stage + 1: (weights, survivors)})
    return run.generate(inputs, **SETTINGS)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("method", "stage"),
    [(KeepSome(), None), (MergeSome((1,)), 1), (MergeSome((1,)) | KeepSome(), 1)],
    ids=["evict", "merge", "both"],
)
def test_a_mask_with_holes_equals_masking(
    kernel: str, method: Compressor, stage: int | None
) -> None:
    vlm = ZOO["fuyu"].build(kernel)
    inputs = fuyu_holes(stack(ZOO["fuyu"].rows(vlm.model.config)))
    ours = vlm.generate(inputs, method, **SETTINGS)
    assert all(record.achieved_retention < 1 for record in ours.records)
    assert worst(ours.output, masked(vlm, inputs, ours.records, stage)) < TOLERANCE


def test_a_knockout_hides_the_same_tokens_with_and_without_holes(tiny_vlm: VLM) -> None:
    """A prompt with a masked word answers as the prompt without that word."""
    whole = prompt(1, 6)
    there = [place for place in range(whole["input_ids"].shape[1]) if place != 1]
    shorter = {
        **whole,
        "input_ids": whole["input_ids"][:, there],
        "attention_mask": whole["attention_mask"][:, there],
    }
    cut = (Knockout(tuple(range(tiny_vlm.facts.layers)), "last", "vision"),)
    holed = tiny_vlm.generate(with_holes(whole, (0, 1)), interventions=cut, **SETTINGS)
    without = tiny_vlm.generate(shorter, interventions=cut, **SETTINGS)
    assert worst(holed.output, without.output) < TOLERANCE


@pytest.mark.parametrize("method", [MergeSome((1,), positions="reindex"), None], ids=str)
def test_holes_where_they_would_be_counted_wrong_are_refused(method: Compressor | None) -> None:
    vlm = ZOO["gemma3" if method is None else "llava"].build()
    row = ZOO[vlm.name].rows(vlm.model.config)[0]
    with pytest.raises(UnsupportedError, match="middle of a prompt"):
        vlm.generate(with_holes(row, (0, 1)), method or KeepSome(), **SETTINGS)


def test_padding_on_the_right_is_refused(tiny_vlm: VLM) -> None:
    short, long = prompt(1, 4), prompt(1, 6, seed=1)
    pad = torch.nn.functional.pad
    batch = {
        name: torch.cat([pad(short[name], (0, 2)), long[name]])
        for name in ("input_ids", "attention_mask")
    }
    batch["pixel_values"] = torch.cat([short["pixel_values"], long["pixel_values"]])
    with pytest.raises(InputError, match=r"row 0 .* padded on the right"):
        tiny_vlm.generate(batch, KeepSome(), **SETTINGS)
    with pytest.raises(InputError, match="padded on the right"):
        tiny_vlm.layout(batch)
    mask = torch.ones_like(batch["attention_mask"])
    mask[1] = 0
    with pytest.raises(InputError, match=r"row 1 .* all padding"):
        tiny_vlm.layout({**batch, "attention_mask": mask})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "input_ids are missing"),
        ({"input_ids": None, "inputs_embeds": torch.zeros(1, 4, 64)}, "pass both"),
        ({"input_ids": torch.tensor([3, 4])}, "prompts x tokens"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "at least one of each"),
        ({"input_ids": torch.zeros(1, 3)}, "whole numbers"),
        ({"input_ids": [[3, 4]]}, "list"),
        ({"attention_mask": torch.ones(1, 3)}, "one number per token"),
        ({"attention_mask": 1}, "one number per token"),
        ({"pixel_values": None}, "pixel_values is missing"),
    ],
)
def test_inputs_that_can_not_be_used(tiny_vlm: VLM, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_vlm.generate({**prompt(1, 5), **change}, KeepSome(), **SETTINGS)


def test_a_mask_of_other_numbers_is_refused(tiny_vlm: VLM) -> None:
    inputs = prompt(1, 5)
    with pytest.raises(InputError, match="other numbers"):
        tiny_vlm.layout({**inputs, "attention_mask": 2 * inputs["attention_mask"]})


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_vl", "qwen3_vl"])
def test_a_word_that_equals_the_video_id_is_a_word(name: str) -> None:
    vlm = ZOO[name].build()
    row = dict(ZOO[name].rows(vlm.model.config)[0])
    ids = row["input_ids"].clone()
    ids[0, -2] = VIDEO
    row["input_ids"] = ids
    plain = vlm.model.generate(**row, **SETTINGS)
    ours = vlm.generate(row, KeepSome(retention=2.0), **SETTINGS)
    assert torch.equal(logits(ours.output), logits(plain))
    layout = vlm.layout(row)
    assert int(layout.kind[0, -2]) == TokenKind.TEXT
    if "mm_token_type_ids" in row:
        types = row["mm_token_type_ids"].clone()
        types[0, -2] = 2
        with pytest.raises(InputError, match="video_grid_thw is missing"):
            vlm.layout({**row, "mm_token_type_ids": types})


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_tiles_side_by_side_are_tiles_of_one_image(name: str) -> None:
    vlm = ZOO[name].build()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, 6, 7, *[IMAGE] * 32, 8, 9, 10]])
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels[None]}
    layout = vlm.layout(row)
    assert layout.grids == ((Grid(1, 4, 4),) * 2,)
    assert layout.image[0, 3:35].tolist() == [0] * 32
    assert layout.segment[0, 3:35].tolist() == [0] * 16 + [1] * 16
    plain = vlm.model.generate(**row, **SETTINGS)
    ours = vlm.generate(row, KeepSome(retention=2.0), **SETTINGS)
    assert torch.equal(logits(ours.output), logits(plain))
    evicted = vlm.generate(row, KeepSome(), **SETTINGS)
    assert worst(evicted.output, masked(vlm, row, evicted.records, None)) < TOLERANCE


def test_images_side_by_side_and_apart_are_counted_apart() -> None:
    family, config = family_of("idefics3"), ZOO["idefics3"].config()
    mark, tile = 148, [IMAGE] * 16
    ids = torch.tensor([[mark, 3, *tile * 2, mark, mark, 3, *tile, mark, 9]])
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": ids}
    layout = family.layout(config, row)
    assert layout.image[0, layout.vision[0]].tolist() == [0] * 32 + [1] * 16
