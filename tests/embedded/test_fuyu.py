"""The encoder-free model: its lean forward pass is the stock one, and its prompts are Fuyu's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import lightkv
from lightkv.commands.train_embedded import train_embedded_command
from lightkv.embedded import items
from lightkv.embedded import vocabulary as words
from lightkv.embedded.batches import NO_TURN, Batch, TextSettings, make_batch
from lightkv.embedded.fuyu.architecture import Architecture
from lightkv.embedded.fuyu.lean import LeanModel, patch_vectors
from lightkv.embedded.fuyu.processing import build_processor
from lightkv.embedded.fuyu.recipe import QUICK, SHIPPED
from lightkv.embedded.fuyu.vocabulary import KNOWN, LINE_ID
from lightkv.embedded.recipe import MIX
from lightkv.embedded.trainer import Trainer, choose_patches
from lightkv.errors import InputError
from tests.closeness import assert_close

SIZES = Architecture(hidden=32, layers=3, heads=2, intermediate=48, seeing=2)


@pytest.fixture(scope="module")
def student() -> LeanModel:
    made = SIZES.student(0)
    assert isinstance(made, LeanModel)
    return made


def _batch(conversation: float) -> Batch:
    settings = TextSettings(72, MIX, caption=0.2, conversation=conversation)
    return make_batch(np.random.default_rng(3), 2, settings, shapes=(3, 6), numbers=(0, 3))


def _stock(student: LeanModel, batch: Batch, row: int, text: torch.Tensor) -> Any:
    """The stock model on the picture of a row, its prompt's beginning and a text."""
    line = [words.IMAGE_ID] * 16 + [LINE_ID]
    ids = torch.tensor([[*line * 16, *batch.prefix[row].tolist(), *text.tolist()]])
    return student.model(input_ids=ids, pixel_values=patch_vectors(batch.pixels[row : row + 1])[0])


def test_lean_forward_equals_stock_forward_in_a_conversation(student: LeanModel) -> None:
    batch = _batch(1.0)
    every = torch.arange(256).expand(2, -1)
    with torch.no_grad():
        lean, _ = student.answer(batch, every)
        for row in range(2):
            inside = batch.turn[row] < NO_TURN
            stock = _stock(student, batch, row, batch.text[row][inside]).logits[0]
            size = int(inside.sum())
            assert_close(lean[row][inside], stock[-size - 1 : -1], 1e-4)


def test_lean_forward_equals_stock_forward_for_each_turn(student: LeanModel) -> None:
    batch = _batch(0.0)
    every = torch.arange(256).expand(2, -1)
    with torch.no_grad():
        lean, _ = student.answer(batch, every)
        for turn in (1, 2):
            asked = batch.turn[0] == turn
            stock = _stock(student, batch, 0, batch.text[0][asked]).logits[0]
            assert_close(lean[0][asked][1:], stock[-int(asked.sum()) : -1], 1e-4)


def test_what_is_seen_is_the_state_after_the_seeing_layers(student: LeanModel) -> None:
    batch = _batch(0.0)
    every = torch.arange(256).expand(2, -1)
    text = batch.text[0][batch.turn[0] == 1]
    with torch.no_grad():
        _, image = student.answer(batch, every)
        alone = student.see(batch.pixels)
        line = [words.IMAGE_ID] * 16 + [LINE_ID]
        ids = torch.tensor([[*line * 16, *batch.prefix[0].tolist(), *text.tolist()]])
        states = student.model(
            input_ids=ids,
            pixel_values=patch_vectors(batch.pixels[:1])[0],
            output_hidden_states=True,
        ).hidden_states[SIZES.seeing][0]
    vision = states[torch.tensor([*line * 16, *[0] * (len(states) - 272)]) == words.IMAGE_ID]
    assert_close(image[0], vision, 1e-4)
    assert_close(alone, image, 1e-4)


def test_left_out_patches_keep_the_positions_of_the_others(student: LeanModel) -> None:
    """Only the first layer can be compared: later states have seen fewer tokens."""
    batch = _batch(0.0)
    kept = choose_patches(np.random.default_rng(0), batch, 64)
    _, position, rank = student._picture(batch.pixels, kept)
    for row in range(2):
        stands = position[row][rank[row]]
        assert (stands == kept[row] + kept[row] // 16).all()
        others = set(position[row].tolist()) - set(stands.tolist())
        assert others == {17 * line + 16 for line in range(16)}
        assert (position[row].diff() > 0).all()


def test_the_processor_writes_what_training_sees() -> None:
    processor = build_processor()
    item = items("read", 1)[0]
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": item.question}]}
    ]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    made = processor(text=prompt, images=item.image, return_tensors="pt")
    line = [words.IMAGE_ID] * 16 + [LINE_ID]
    asked = words.encode(item.question)
    rest = [*words.PREFIX_IDS, *asked, *words.encode("assistant :")]
    assert made["input_ids"].tolist() == [[*line * 16, *rest]]
    chat[0]["content"][0]["image"] = item.image
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    at_once = processor.apply_chat_template(chat, add_generation_prompt=True, **options)
    assert torch.equal(at_once["input_ids"], made["input_ids"])
    pixels = torch.from_numpy(np.array(item.image))[None]
    assert_close(made["pixel_values"], patch_vectors(pixels)[0], 1e-6)


@pytest.mark.parametrize(
    ("width", "height", "grid"), [(64, 128, (16, 8)), (60, 33, (5, 8)), (256, 128, (8, 16))]
)
def test_other_pictures_keep_their_shape(width: int, height: int, grid: tuple[int, int]) -> None:
    picture = Image.new("RGB", (width, height), (10, 200, 30))
    made = build_processor()(text="<image><s> hello", images=[picture], return_tensors="pt")
    rows, columns = grid
    line = [words.IMAGE_ID] * columns + [LINE_ID]
    assert made["input_ids"][0, :-2].tolist() == line * rows
    assert made["pixel_values"].shape == (rows * columns, 192)


def test_prompts_of_several_lengths_are_padded_on_the_left() -> None:
    texts = ["<image><s> hello", "<s> hello hello hello"]
    picture = Image.new("RGB", (16, 8))
    made = build_processor()(text=texts, images=[picture], padding=True, return_tensors="pt")
    assert made["input_ids"].shape == (2, 5)
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "pictures", "message"),
    [
        ("<image><image><s> hello", 2, "has 2 pictures"),
        ("<s> hello", 1, "1 pictures for prompts with 0"),
        ("<image><s> hello", 0, "0 pictures for prompts with 1"),
    ],
)
def test_prompts_and_pictures_that_do_not_belong_together(
    text: str, pictures: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_processor()(text=text, images=[Image.new("RGB", (8, 8))] * pictures)


def test_arguments_without_effect_are_refused() -> None:
    with pytest.raises(InputError, match="do_normalize, videos: no effect"):
        build_processor()(text="<s> hello", do_normalize=False, audio=None, videos=[[]])


def test_first_stage_trains_the_seeing_layers_and_the_next_everything() -> None:
    trainer = Trainer(QUICK)
    decoder = trainer.student.decoder
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    list(trainer.run(4))
    after = {k: v.clone() for k, v in decoder.state_dict().items()}
    changed = {k.split(".")[1] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"0"}
    list(trainer.run())
    assert trainer.done
    matrices = [k for k, v in after.items() if v.dim() == 2]
    assert not any(torch.equal(after[k], decoder.state_dict()[k]) for k in matrices)


def test_shipped_recipe_is_the_square_models_with_a_longer_first_stage() -> None:
    assert SHIPPED.architecture == Architecture() and SHIPPED.stages[0].steps == 1500
    assert len(KNOWN) == LINE_ID + 1 == Architecture().student(0).words.num_embeddings


def test_command_writes_a_folder_that_answers(tmp_path: Path) -> None:
    arguments = ["--model", "fuyu", "--out", str(tmp_path), "--quick", "--no-compile"]
    result = CliRunner().invoke(
        train_embedded_command, [*arguments, "--evaluate", "2"], catch_exceptions=False
    )
    assert result.exit_code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["kinds"]["read"]["full"]["n"] == 2
    card = (tmp_path / "README.md").read_text()
    assert "`lightkv train-embedded --model fuyu` runs" in card and "encoder-free" in card
    assert f"{len(KNOWN)} words" in card and "The shipped run" not in card
    vlm = lightkv.load(tmp_path)
    item = items("color", 1)[0]
    answer = vlm.ask(item.image, item.question, "tgvkv:retention=0.5")
    assert answer.record.layout.grids[0][0].rows == 16
