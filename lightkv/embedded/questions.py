"""The held-out items asked of the model, and conversations.

Held-out by construction: every random stream is keyed by its purpose (:class:`Stream`) before its
seed, so training and items can never draw from the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from PIL import Image

from lightkv.contract.checks import check_count
from lightkv.contract.types import check_type, plain
from lightkv.embedded import scenes as drawing
from lightkv.embedded.question_kinds import QUESTION_KINDS, ask, picture_of
from lightkv.embedded.registry import Question
from lightkv.embedded.scenes import Scenes
from lightkv.errors import InvalidValueError, UnknownNameError

SHORT = tuple(name for name in QUESTION_KINDS if name not in ("read", "list", "caption"))
"""Kinds whose answers take at most two words."""

Cells = frozenset[tuple[int, int]]

MOST_TURNS = 12


class Stream(IntEnum):
    """First word of every seed: what the random numbers are for."""

    TRAINING = 1
    ITEMS = 3
    CONVERSATIONS = 4
    EARLIER = 5
    NATIVE = 6
    NATIVE_HELD_OUT = 7
    NATIVE_ITEMS = 8


@dataclass(frozen=True)
class Item:
    """One held-out question.

    Attributes:
        image: The picture, 128 x 128 RGB.
        question: The user's text.
        answer: The expected text, words separated by single spaces.
        kind: One of :data:`QUESTION_KINDS`.
        index: Position in its stream.
        cells: (row, column) patches of the 16 x 16 grid covered by the objects asked about: the
            matching shapes for ``count``, all shapes for ``list``, everything for ``caption``;
            empty where the right answer is that there is none.
        earlier: A short question of another kind about the same picture, for conversations in
            which this item is the second question; None in the turns of a conversation.
    """

    image: Image.Image
    question: str
    answer: str
    kind: str
    index: int
    cells: Cells
    earlier: str | None = None


@dataclass(frozen=True)
class Conversation:
    """Several questions about one picture; every turn repeats the same image object."""

    image: Image.Image
    turns: tuple[Item, ...]
    index: int


def items(kind: str, count: int, *, seed: int = 0, numbers: tuple[int, int] = (1, 2)) -> list[Item]:
    """The first ``count`` held-out items of a kind; item ``i`` does not depend on ``count``.

    Args:
        kind: One of :data:`QUESTION_KINDS`.
        count: How many items.
        seed: Another seed gives another, independent set.
        numbers: Inclusive range of how many numbers a picture holds.

    Raises:
        UnknownNameError: If there is no such kind.
        InvalidValueError: If a number is out of range or not whole.
    """
    if not isinstance(kind, str) or kind not in QUESTION_KINDS:
        raise UnknownNameError("question kind", kind, QUESTION_KINDS)
    check_count("count", count, least=0)
    check_count("seed", seed, least=0)
    check_type("numbers", plain(numbers), tuple[int, int])
    if not 0 <= numbers[0] <= numbers[1]:
        raise InvalidValueError("numbers", numbers, "a least and a largest number of at least 0")
    code = QUESTION_KINDS.index(kind)
    return [
        _item(kind, (Stream.ITEMS, seed, code, index), index, numbers) for index in range(count)
    ]


def conversations(count: int, *, seed: int = 0, turns: int = 2) -> list[Conversation]:
    """Held-out conversations: ``turns`` different questions about one picture.

    Kinds are mixed, but ``caption`` is left out: its answer would give the later ones away.

    Raises:
        InvalidValueError: If a number is out of range or not whole.
    """
    check_count("count", count, least=0)
    check_count("seed", seed, least=0)
    check_count("turns", turns)
    if turns > MOST_TURNS:
        raise InvalidValueError("turns", turns, f"at most {MOST_TURNS}")
    return [
        _conversation((Stream.CONVERSATIONS, seed, index), index, turns) for index in range(count)
    ]


def _item(kind: str, key: tuple[int, ...], index: int, numbers: tuple[int, int]) -> Item:
    rng = np.random.default_rng(key)
    while True:
        scenes = drawing.sample(rng, 1, numbers=numbers)
        question = ask(kind, rng, picture_of(scenes))
        if question is not None:
            image = Image.fromarray(drawing.render(rng, scenes)[0])
            # A stream of its own, so that pictures and questions are what they were without it.
            earlier = _earlier(kind, np.random.default_rng((Stream.EARLIER, *key)), scenes)
            return replace(_finish(question, kind, index, image, scenes), earlier=earlier)


def _earlier(kind: str, rng: np.random.Generator, scenes: Scenes) -> str:
    picture = picture_of(scenes)
    others = [name for name in SHORT if name != kind]
    while True:
        question = ask(str(rng.choice(others)), rng, picture)
        if question is not None:
            return question.text


def _conversation(key: tuple[int, ...], index: int, turns: int) -> Conversation:
    rng = np.random.default_rng(key)
    while True:
        scenes = drawing.sample(rng, 1)
        picture = picture_of(scenes)
        asked: dict[str, tuple[str, Question]] = {}
        for name in rng.choice([f for f in QUESTION_KINDS if f != "caption"], 8 * turns):
            question = ask(str(name), rng, picture)
            if question is not None and len(asked) < turns:
                asked.setdefault(question.text, (str(name), question))
        if len(asked) == turns:
            break
    image = Image.fromarray(drawing.render(rng, scenes)[0])
    made = (_finish(question, name, index, image, scenes) for name, question in asked.values())
    return Conversation(image, tuple(made), index)


def _finish(question: Question, kind: str, index: int, image: Image.Image, scenes: Scenes) -> Item:
    owner, _ = drawing.coverage(scenes)
    covered = np.argwhere(np.isin(owner[0], question.about))
    cells = frozenset((int(row), int(column)) for row, column in covered)
    return Item(image, question.text, question.answer, kind, index, cells)
