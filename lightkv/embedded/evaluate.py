"""Exact match of a checkpoint on held-out items, through the stock classes and ``generate``."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from lightkv.embedded import questions, scenes
from lightkv.embedded.question_kinds import QUESTION_KINDS, ask, picture_of
from lightkv.embedded.questions import Conversation, Item, Stream
from lightkv.embedded.vocabulary import REFUSAL

logger = logging.getLogger(__name__)

FREE_FORM: Final = (
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "Write a poem about the sea.",
    "What breed is the dog?",
    "How many people are standing on the bridge?",
    "Please translate this sign into German.",
    "Is the man on the left wearing a hat?",
    "asdf qwer zxcv",
    "1 + 1 = ?",
    "Ignore the picture and tell me a joke.",
    "Why is the sky blue?",
    "Summarize the document in two sentences.",
    "What color is the elephant?",
    "Where is the telephone?",
    "?!?!",
    "",
    "éàü 你好 🙂",
    "What time does the clock show?",
    "Read the headline of the newspaper.",
)
"""Inputs outside the question kinds, as users might type them."""


@dataclass(frozen=True)
class Answerer:
    """A model with its processor."""

    model: Any
    processor: Any
    batch: int = 50

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", batch: int = 50) -> Answerer:
        """Load a checkpoint through the auto classes in float32."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        return cls(model.to(device).eval(), processor, batch)

    def __call__(
        self, chats: Sequence[list[dict[str, Any]]], images: Sequence[Image.Image]
    ) -> list[str]:
        """Greedy answers, one image per chat."""
        answers: list[str] = []
        for start in range(0, len(chats), self.batch):
            part = slice(start, start + self.batch)
            prompts = [
                self.processor.apply_chat_template(chat, add_generation_prompt=True)
                for chat in chats[part]
            ]
            inputs = self.processor(
                text=prompts,
                images=[[image] for image in images[part]],
                padding=True,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                output = self.model.generate(**inputs, do_sample=False, max_new_tokens=64)
            new = output[:, inputs["input_ids"].shape[1] :]
            answers += self.processor.batch_decode(new, skip_special_tokens=True)
        return answers


def user(text: str, *, image: bool) -> dict[str, Any]:
    """One user message in the chat format."""
    picture = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*picture, {"type": "text", "text": text}]}


def interval(right: int, count: int) -> tuple[float, float]:
    """Two-sided 95 % Clopper-Pearson interval of a share.

    Without scipy, so that a bare machine with an accelerator can write the card: each bound is the
    share at which a result as extreme has a probability of 2.5 %, by bisection.
    """
    return _least_share(right, count), 1 - _least_share(count - right, count)


def _least_share(right: int, count: int) -> float:
    """Share at which ``right`` or more of ``count`` has a probability of 2.5 %."""
    low, high = 0.0, 1.0
    ways = [math.comb(count, n) for n in range(right, count + 1)]
    for _ in range(60 if right else 0):
        share = (low + high) / 2
        logs = [
            math.log(way) + n * math.log(share) + (count - n) * math.log1p(-share)
            for n, way in enumerate(ways, right)
        ]
        below = math.fsum(map(math.exp, logs)) < 0.025
        low, high = (share, high) if below else (low, share)
    return low


def share(right: Iterable[bool]) -> dict[str, float]:
    """Share of true values with its interval, ready for JSON."""
    values = list(right)
    low, high = interval(sum(values), len(values))
    return {
        "right": sum(values),
        "n": len(values),
        "share": round(sum(values) / len(values), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def exact_match(
    answerer: Answerer, asked: Sequence[Item], images: Sequence[Image.Image] | None = None
) -> list[bool]:
    """Whether every answer equals the expected one; ``images`` replace the items' own."""
    shown = [item.image for item in asked] if images is None else images
    answers = answerer([[user(item.question, image=True)] for item in asked], shown)
    return [answer == item.answer for answer, item in zip(answers, asked, strict=True)]


def evaluate(answerer: Answerer, count: int = 500, seed: int = 0) -> dict[str, Any]:
    """All numbers of the model card.

    Every kind is asked ``count`` items with the right picture, with an empty background
    (``blank``), and with the picture of the next item (``swapped``).
    """
    backgrounds = _backgrounds(count, seed)
    kinds: dict[str, Any] = {}
    for kind in QUESTION_KINDS:
        asked = questions.items(kind, count, seed=seed)
        swapped = [asked[(index + 1) % count].image for index in range(count)]
        kinds[kind] = {
            "full": share(exact_match(answerer, asked)),
            "blank": share(exact_match(answerer, asked, backgrounds)),
            "swapped": share(exact_match(answerer, asked, swapped)),
            "majority": _majority(asked),
        }
        logger.info("%s %s", kind, kinds[kind]["full"])
    return {
        "count": count,
        "seed": seed,
        "kinds": kinds,
        "read_by_numbers": {
            str(numbers): share(
                exact_match(
                    answerer,
                    questions.items("read", count, seed=seed + 1, numbers=(numbers, numbers)),
                )
            )
            for numbers in (1, 2, 3)
        },
        "second_turn": _second_turn(answerer, questions.conversations(count, seed=seed)),
        "refusal": _refusals(answerer, count, seed),
        "free_form": _free_form(answerer, seed),
    }


def _backgrounds(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng((Stream.ITEMS, seed, len(QUESTION_KINDS)))
    texture = scenes.background(rng, count).clip(0, 1)
    return [Image.fromarray(picture) for picture in (texture * 255).astype(np.uint8)]


def _majority(asked: Sequence[Item]) -> float:
    """Share of the most frequent right answer."""
    answers = [item.answer for item in asked]
    return round(max(map(answers.count, set(answers))) / len(answers), 4)


def _second_turn(answerer: Answerer, talks: Sequence[Conversation]) -> dict[str, Any]:
    """Exact match of the second question of a conversation whose first answer is the right one."""
    chats = []
    for talk in talks:
        first, second = talk.turns
        said = {"role": "assistant", "content": [{"type": "text", "text": first.answer}]}
        chats.append([user(first.question, image=True), said, user(second.question, image=False)])
    answers = answerer(chats, [talk.image for talk in talks])
    right = [a == talk.turns[1].answer for a, talk in zip(answers, talks, strict=True)]
    kinds = [talk.turns[1].kind for talk in talks]
    by_kind = {
        kind: share(ok for ok, asked_kind in zip(right, kinds, strict=True) if asked_kind == kind)
        for kind in QUESTION_KINDS
        if kind in kinds
    }
    return {"all": share(right), "by_kind": by_kind}


def _refusals(answerer: Answerer, count: int, seed: int) -> dict[str, Any]:
    """How often questions without an answer are refused: absent objects and unknown words."""
    result = {}
    for code, name in enumerate(("absent", "unknown"), len(QUESTION_KINDS) + 1):
        rng = np.random.default_rng((Stream.ITEMS, seed, code))
        images: list[Image.Image] = []
        texts: list[str] = []
        while len(texts) < count:
            drawn = scenes.sample(rng, 1)
            question = ask(name, rng, picture_of(drawn))
            if question is not None:
                images.append(Image.fromarray(scenes.render(rng, drawn)[0]))
                texts.append(question.text)
        answers = answerer([[user(text, image=True)] for text in texts], images)
        result[name] = share(answer == REFUSAL for answer in answers)
    return result


def _free_form(answerer: Answerer, seed: int) -> dict[str, Any]:
    """Answers to inputs outside the kinds."""
    asked = questions.items("caption", len(FREE_FORM), seed=seed)
    chats = [[user(text, image=True)] for text in FREE_FORM]
    answers = answerer(chats, [item.image for item in asked])
    return {
        "refused": share(answer == REFUSAL for answer in answers),
        "answers": dict(zip(FREE_FORM, answers, strict=True)),
    }
