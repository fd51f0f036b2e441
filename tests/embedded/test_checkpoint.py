"""The shipped checkpoint and its processor behave like any other vision-language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightkv.embedded import CHECKPOINT, QUESTION_KINDS, conversations, items
from lightkv.embedded.evaluate import FREE_FORM, Answerer, exact_match, interval, share, user
from lightkv.embedded.processing import build_processor, build_tokenizer
from lightkv.embedded.publish import read_metrics
from lightkv.embedded.vocabulary import DEFAULT_SYSTEM, PREFIX_IDS, TOKEN, WORDS, decode, encode
from tests.closeness import assert_close


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return Answerer.load(CHECKPOINT)


def test_tokenizer_round_trip() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(WORDS)
    for kind in QUESTION_KINDS:
        for item in items(kind, 5):
            text = f"{item.question} {item.answer}"
            ids = tokenizer(text)["input_ids"]
            assert ids == encode(text)
            assert tokenizer.decode(ids) == decode(ids) == text


def test_tokenizer_accepts_free_typing() -> None:
    tokenizer = build_tokenizer()
    want = encode("what color is the circle ?")
    for text in (
        "What color is the circle?",
        "WHAT COLOUR IS THE CIRCLE ?",
        " what  color is the circle?",
    ):
        assert tokenizer(text)["input_ids"] == want
    assert tokenizer("4711")["input_ids"] == encode("4 7 1 1")
    assert tokenizer("zebra")["input_ids"] == [TOKEN["<unk>"]]
    assert tokenizer("")["input_ids"] == []


def test_chat_template_of_one_turn() -> None:
    processor = build_processor()
    prompt = processor.apply_chat_template(
        [user("what color is the ring ?", image=True)], add_generation_prompt=True
    )
    assert prompt == (
        f"<s> system : {DEFAULT_SYSTEM} user : <image> what color is the ring ? assistant :"
    )
    picture = items("color", 1)[0].image
    ids = processor(text=prompt, images=picture, return_tensors="pt")["input_ids"][0].tolist()
    assert tuple(ids[: len(PREFIX_IDS)]) == PREFIX_IDS
    assert ids[len(PREFIX_IDS) :] == [TOKEN["<image>"]] * 256 + encode(
        "what color is the ring ? assistant :"
    )


def test_chat_template_of_a_conversation() -> None:
    processor = build_processor()
    chat: list[Any] = [
        {"role": "system", "content": "be brief ."},
        {"role": "user", "content": [{"type": "text", "text": "where is it ?"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "top left"}]},
        user("what color is it ?", image=False),
    ]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<s> system : be brief . user : <image> where is it ? assistant : top left </s>"
        " user : what color is it ? assistant :"
    )


def test_checkpoint_is_small_and_documented() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 16e6
    for name in ("config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja"):
        assert (CHECKPOINT / name).exists()


def test_processor_of_the_checkpoint_is_the_one_of_the_code(answerer: Answerer) -> None:
    built = build_processor()
    item = items("read", 1)[0]
    prompt = built.apply_chat_template(
        [user(item.question, image=True)], add_generation_prompt=True
    )
    assert answerer.processor.chat_template == built.chat_template
    a = built(text=prompt, images=item.image, return_tensors="pt")
    b = answerer.processor(text=prompt, images=item.image, return_tensors="pt")
    assert torch.equal(a["input_ids"], b["input_ids"])
    assert torch.equal(a["pixel_values"], b["pixel_values"])
    exact = torch.from_numpy(np.array(item.image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert_close(a["pixel_values"], exact)


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_checkpoint_answers(answerer: Answerer, kind: str) -> None:
    """Eight items each; the measured rates are in the model card."""
    assert sum(exact_match(answerer, items(kind, 8, seed=3))) >= 6


def test_checkpoint_uses_the_picture(answerer: Answerer) -> None:
    asked = items("read", 8, seed=3)
    swapped = [asked[(i + 1) % len(asked)].image for i in range(len(asked))]
    assert sum(exact_match(answerer, asked, swapped)) <= 1


def test_conversation_is_answered(answerer: Answerer) -> None:
    talks = conversations(6, seed=3)
    chats = []
    for talk in talks:
        said = {"role": "assistant", "content": talk.turns[0].answer}
        first, second = talk.turns
        chats.append([user(first.question, image=True), said, user(second.question, image=False)])
    answers = answerer(chats, [talk.image for talk in talks])
    assert sum(a == t.turns[1].answer for a, t in zip(answers, talks, strict=True)) >= 4


def test_free_form_input_never_crashes(answerer: Answerer) -> None:
    pictures = [Image.new("RGB", (37, 211), "orange")] * len(FREE_FORM)
    answers = answerer([[user(text, image=True)] for text in FREE_FORM], pictures)
    assert len(answers) == len(FREE_FORM)
    assert all(isinstance(answer, str) for answer in answers)


def test_text_only_and_two_images_run(answerer: Answerer) -> None:
    processor, model = answerer.processor, answerer.model
    prompt = processor.apply_chat_template([user("hello", image=False)], add_generation_prompt=True)
    inputs = processor(text=prompt, return_tensors="pt")
    assert model.generate(**inputs, do_sample=False, max_new_tokens=8).shape[0] == 1
    first, second = (item.image for item in items("color", 2))
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "image"},
                {"type": "text", "text": "describe the image ."},
            ],
        }
    ]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(text=prompt, images=[first, second], return_tensors="pt")
    assert (inputs["input_ids"] == TOKEN["<image>"]).sum() == 512
    assert model.generate(**inputs, do_sample=False, max_new_tokens=8).shape[0] == 1


def test_card_and_metrics_agree() -> None:
    metrics = read_metrics(CHECKPOINT)
    card = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    for kind in QUESTION_KINDS:
        full = metrics["kinds"][kind]["full"]
        assert full["n"] >= 500
        assert f"{full['share']:.3f} ({full['low']:.3f}-{full['high']:.3f}" in card


def test_interval_and_share() -> None:
    low, high = interval(95, 100)
    assert (round(low, 3), round(high, 3)) == (0.887, 0.984)
    assert share([True, True, False, True])["share"] == 0.75
