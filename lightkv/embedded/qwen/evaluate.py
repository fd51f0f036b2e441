"""Exact match of the native-resolution model through the stock classes and ``generate``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from lightkv.embedded import scenes
from lightkv.embedded.canvas import PATCH, Canvas
from lightkv.embedded.evaluate import share
from lightkv.embedded.questions import Stream
from lightkv.embedded.qwen.items import KINDS, NativeItem, native_items
from lightkv.embedded.qwen.video_kinds import HINTS

logger = logging.getLogger(__name__)

LENGTHS: Final = (30, 60, 120, 260)
"""Most words of a legend question in each group of the table by length."""


@dataclass(frozen=True)
class Answerer:
    """A model with its processor, and how many prompts it reads at a time."""

    model: Any
    processor: Any
    batch: int = 25

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", batch: int = 25) -> Answerer:
        """Load a checkpoint through the auto classes in float32."""
        from transformers import AutoModelForImageTextToText

        from lightkv.embedded.qwen.processing import NativeProcessor

        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        processor = NativeProcessor.from_pretrained(folder)
        return cls(model.to(device).eval(), processor, batch)

    def __call__(self, asked: Sequence[NativeItem]) -> list[str]:
        """Greedy answers; items of one length are read together, so that little is padding."""
        order = sorted(range(len(asked)), key=lambda at: _size(asked[at]))
        answers = [""] * len(asked)
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for at, answer in zip(part, self._part([asked[at] for at in part]), strict=True):
                answers[at] = answer
        return answers

    def _part(self, asked: Sequence[NativeItem]) -> list[str]:
        texts = [
            self.processor.apply_chat_template([message(item)], add_generation_prompt=True)
            for item in asked
        ]
        seen: dict[str, Any] = {}
        images = [image for item in asked for image in item.images]
        videos = [list(item.frames) for item in asked if item.frames]
        if images:
            seen["images"] = images
        if videos:
            seen["videos"] = videos
        inputs = self.processor(text=texts, padding=True, return_tensors="pt", **seen)
        inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(**inputs, do_sample=False, max_new_tokens=40)
        new = output[:, inputs["input_ids"].shape[1] :]
        answers: list[str] = self.processor.batch_decode(new, skip_special_tokens=True)
        return answers


def message(item: NativeItem) -> dict[str, Any]:
    """The user's message in the chat format."""
    seen = [{"type": "image"}] * len(item.images) + [{"type": "video"}] * bool(item.frames)
    return {"role": "user", "content": [*seen, {"type": "text", "text": item.question}]}


def exact_match(answerer: Answerer, asked: Sequence[NativeItem]) -> list[bool]:
    """Whether every answer equals the expected one."""
    answers = answerer(asked)
    return [answer == item.answer for answer, item in zip(answers, asked, strict=True)]


def evaluate(
    answerer: Answerer, count: int = 500, seed: int = 0, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """All numbers of the model card.

    Every kind is asked ``count`` items as they are, with empty backgrounds (``blank``), and with
    what the next item shows (``swapped``). Video kinds are also counted by hint, ``legend`` by
    the length of the question.

    Args:
        answerer: The model.
        count: Items of every kind.
        seed: Of the items.
        kinds: What to ask.
    """
    scores: dict[str, Any] = {}
    by_hint: dict[str, Any] = {}
    by_length: dict[str, Any] = {}
    for kind in kinds:
        asked = native_items(kind, count, seed=seed)
        right = exact_match(answerer, asked)
        scores[kind] = {
            "full": share(right),
            "blank": share(exact_match(answerer, blank(asked, seed))),
            "swapped": share(exact_match(answerer, swapped(asked))),
            "majority": _majority(asked),
        }
        if asked[0].frames:
            by_hint[kind] = _grouped(right, [item.hint for item in asked], HINTS)
        if kind == "legend":
            groups = [_length_group(item) for item in asked]
            by_length = _grouped(right, groups, [str(most) for most in LENGTHS])
        logger.info("%s %s", kind, scores[kind])
    return {
        "count": count,
        "seed": seed,
        "kinds": scores,
        "by_hint": by_hint,
        "legend_by_length": by_length,
    }


def blank(asked: Sequence[NativeItem], seed: int) -> list[NativeItem]:
    """The items with empty backgrounds of the same sizes."""
    rng = np.random.default_rng((Stream.NATIVE_ITEMS, seed, len(KINDS)))
    emptied = []
    for item in asked:
        pictures = [_background(rng, image) for image in item.images]
        frames = [_background(rng, item.frames[0])] * len(item.frames) if item.frames else []
        emptied.append(replace(item, images=tuple(pictures), frames=tuple(frames)))
    return emptied


def swapped(asked: Sequence[NativeItem]) -> list[NativeItem]:
    """The items with what the next one shows."""
    following = [*asked[1:], asked[0]]
    return [
        replace(item, images=other.images, frames=other.frames)
        for item, other in zip(asked, following, strict=True)
    ]


def _background(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    canvas = Canvas(image.height // PATCH, image.width // PATCH)
    texture = scenes.background(rng, 1, canvas)[0].clip(0, 1)
    return Image.fromarray((texture * 255).astype(np.uint8))


def _size(item: NativeItem) -> tuple[int, int]:
    """Pixels and words, to sort by."""
    seen = (*item.images, *item.frames)
    return sum(image.width * image.height for image in seen), len(item.question.split())


def _length_group(item: NativeItem) -> str:
    words = len(item.question.split())
    return str(next(most for most in LENGTHS if words <= most))


def _grouped(right: Sequence[bool], groups: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Shares by group; a group without items is left out."""
    pairs = list(zip(right, groups, strict=True))
    return {
        name: share(ok for ok, group in pairs if group == name) for name in names if name in groups
    }


def _majority(asked: Sequence[NativeItem]) -> float:
    """Share of the most frequent right answer."""
    answers = [item.answer for item in asked]
    return round(max(map(answers.count, set(answers))) / len(answers), 4)
