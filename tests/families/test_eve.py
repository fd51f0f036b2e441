"""The EVE adapter on a stand-in that has the interface of EVE's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import lightkv
from lightkv import VLM
from lightkv.check.checks import run_checks
from lightkv.check.subject import Subject
from lightkv.check.tiny.model import randomize
from lightkv.contract.layout import Grid
from lightkv.embedded import CHECKPOINT
from lightkv.errors import InputError, ModelError
from lightkv.families import family_of
from lightkv.families.eve import IMAGE_SENTINEL, eve_inputs

PATCH = 8


class StandInConfig(LlamaConfig):
    model_type = "eve"


class StandIn(LlamaForCausalLM):
    """A forward pass of its own that loses positions, as EVE's; images become embeddings."""

    def __init__(self, config: StandInConfig) -> None:
        super().__init__(config)
        self.model.patches = torch.nn.Linear(3 * PATCH * PATCH, config.hidden_size)
        self.model.marks = torch.nn.Embedding(2, config.hidden_size)

    def get_model(self) -> Any:
        return self.model

    def encode_images(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features, grids = [], []
        leading, line_break = self.model.marks.weight
        for image in images:
            real = image[3].amax(1).sum().int() // PATCH, image[3].amax(0).sum().int() // PATCH
            rows, cols = (int(n) for n in real)
            cut = image[:3, : rows * PATCH, : cols * PATCH]
            cut = cut.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
            patches = self.model.patches(cut.permute(1, 2, 0, 3, 4).flatten(2))
            ends = line_break.expand(rows, 1, -1)
            features.append(torch.cat([leading[None], torch.cat([patches, ends], 1).flatten(0, 1)]))
            grids.append(torch.tensor([rows, cols]))
        return features, grids

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the adapter must not run the remote forward pass")


@pytest.fixture(scope="module")
def vlm() -> VLM:
    config = StandInConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=160,
        pad_token_id=0,
        eos_token_id=2,
    )
    remote = StandIn(config)
    randomize(remote)
    remote.generation_config.eos_token_id = None
    remote.generation_config.pad_token_id = 0
    family = family_of("eve")
    stock = family.adopt(remote)
    assert type(stock) is LlamaForCausalLM
    assert stock.model is remote.model
    return VLM("eve", stock, None, family)


def image(rows: int, cols: int, seed: int) -> Tensor:
    pixels = torch.randn(4, 4 * PATCH, 6 * PATCH, generator=torch.Generator().manual_seed(seed))
    pixels[3] = 0
    pixels[3, : rows * PATCH, : cols * PATCH] = 1
    return pixels


PROMPTS = [
    torch.tensor([4, 5, IMAGE_SENTINEL, 7, 8, 9]),
    torch.tensor([4, IMAGE_SENTINEL, 7, IMAGE_SENTINEL, 8, 9, 10, 11]),
]
IMAGES = torch.stack([image(3, 5, 0), image(4, 2, 1), image(2, 6, 2)])


def test_every_check_passes(vlm: VLM) -> None:
    with torch.no_grad():
        rows = [
            eve_inputs(vlm.model, PROMPTS[:1], IMAGES[:1]),
            eve_inputs(vlm.model, PROMPTS[1:], IMAGES[1:]),
        ]
        batch = eve_inputs(vlm.model, PROMPTS, IMAGES)
    outcomes = run_checks(Subject(vlm, rows, batch))
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def test_class_token_and_line_breaks_have_no_cell(vlm: VLM) -> None:
    with torch.no_grad():
        layout = vlm.layout(eve_inputs(vlm.model, PROMPTS[:1], IMAGES[:1]))
    assert layout.grids == ((Grid(1, 3, 5),),)
    cells = layout.vision[0] & (layout.col[0] < 5)
    assert int(cells.sum()) == 15
    assert int((layout.vision[0] & (layout.col[0] == 5)).sum()) == 3 + 1


def test_images_and_sentinels_have_to_agree(vlm: VLM) -> None:
    with torch.no_grad(), pytest.raises(InputError, match="1 places for images, 3"):
        eve_inputs(vlm.model, PROMPTS[:1], IMAGES)


def test_remote_code_runs_only_when_trusted(tmp_path: Path, vlm: VLM) -> None:
    from transformers import AutoConfig

    AutoConfig.register("eve", StandInConfig, exist_ok=True)
    folder = tmp_path / "eve"
    shutil.copytree(CHECKPOINT, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "eve"}))
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        lightkv.load(folder)
