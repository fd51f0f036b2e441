"""Items of the native-resolution model as the processor, the training and the scorer see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightkv.embedded import vocabulary as words
from lightkv.embedded.qwen import batches as making
from lightkv.embedded.qwen.evaluate import Answerer, blank, evaluate, message, swapped
from lightkv.embedded.qwen.items import NativeItem, native_items, sort_of
from lightkv.embedded.qwen.processing import FRAME_RATE, build_processor
from lightkv.embedded.qwen.prompts import prompt_words, time_stamp
from lightkv.embedded.qwen.recipe import QUICK
from lightkv.errors import InputError


@pytest.mark.parametrize("kind", ["read", "legend", "order", "compare"])
def test_the_processor_writes_the_prompts_of_the_training(kind: str) -> None:
    item = native_items(kind, 1)[0]
    processor = build_processor()
    text = processor.apply_chat_template([message(item)], add_generation_prompt=True)
    seen = {"videos": [list(item.frames)]} if item.frames else {"images": list(item.images)}
    ids = processor(text=[text], return_tensors="pt", **seen)["input_ids"][0].tolist()
    sort = sort_of(kind)
    grids = [len(item.frames) // 2] if item.frames else [1] * len(item.images)
    rng = np.random.default_rng(0)
    parts = prompt_words(rng, sort, grids)
    if sort == "video":
        while parts[0][-7:-1] != words.encode(time_stamp(0, FRAME_RATE)):
            parts = prompt_words(rng, sort, grids)
    token = words.VIDEO_ID if item.frames else words.IMAGE_ID
    expected = list(parts[0])
    for image, part in zip(item.frames[::2] or item.images, parts[1:], strict=True):
        expected += [token] * (image.width * image.height // 64) + part
    assert ids == expected + words.encode(f"{item.question} assistant :")


def test_frames_become_what_pictures_become() -> None:
    """Two equal frames are one picture, the odd last frame is repeated, and time goes on."""
    rng = np.random.default_rng(0)
    one, two, three = (
        Image.fromarray(rng.integers(0, 255, (64, 72, 3), dtype=np.uint8)) for _ in range(3)
    )
    processor = build_processor()
    picture = processor.image_processor(images=[one], return_tensors="pt")["pixel_values"]
    video = processor.video_processor([[one, one, two, three, three]], return_tensors="pt")
    assert video["video_grid_thw"].tolist() == [[3, 16, 18]]
    grids = video["pixel_values_videos"].view(3, 16 * 18, 3, 2, 16)
    assert torch.equal(grids[0], picture.view(16 * 18, 3, 2, 16))
    assert not torch.equal(grids[1, :, :, 0], grids[1, :, :, 1])
    assert torch.equal(grids[2, :, :, 0], grids[1, :, :, 1])
    assert time_stamp(1, 4) == "< 0 . 6 seconds >"
    other = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="frames of one size"):
        processor.video_processor([[one, other]])


def test_blank_and_swapped_items_show_something_else() -> None:
    asked = native_items("order", 2) + native_items("compare", 2)
    for item, empty in zip(asked, blank(asked, 0), strict=True):
        assert [i.size for i in empty.frames] == [i.size for i in item.frames]
        assert [i.size for i in empty.images] == [i.size for i in item.images]
        assert all(np.asarray(i).max() < 180 for i in (*empty.frames, *empty.images))
    assert swapped(asked)[0].frames == asked[1].frames
    assert swapped(asked)[3].frames == asked[0].frames and not swapped(asked)[3].images


class _Echo:
    """Answers every question from a list."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def __call__(self, asked: list[NativeItem]) -> list[str]:
        return [self.answers.get(item.question, "?") for item in asked]


def test_scores_count_right_answers() -> None:
    asked = native_items("changes", 4)
    known = {item.question: item.answer for item in asked}
    echo: Answerer = _Echo(known)  # type: ignore[assignment]
    metrics = evaluate(echo, 4, 0, ["changes"])
    right = sum(known[item.question] == item.answer for item in asked)
    assert metrics["kinds"]["changes"]["full"]["right"] == right
    hints = metrics["by_hint"]["changes"]
    assert sum(row["n"] for row in hints.values()) == 4
    lengths = evaluate(echo, 4, 0, ["legend"])["legend_by_length"]
    assert sum(row["n"] for row in lengths.values()) == 4


def test_early_parts_of_the_curriculum_are_easier() -> None:
    easy = replace(QUICK.phases[0].difficulty, tokens=1500)
    for seed in range(3):
        batch = making.make_batch(
            np.random.default_rng(seed), replace(easy, sorts={"picture": 1.0})
        )
        view = batch.views[0]
        assert ((view.labels["center"] > 0).sum(2) <= 5).all()
        assert view.kept.shape[2] <= view.canvas.patches
