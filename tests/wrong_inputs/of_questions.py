"""Wrong questions and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from analysis.tasks import task
from lightkv import TGVKV, Request
from lightkv.embedded import conversations, items
from lightkv.errors import InputError, InvalidValueError, LightKVError, UnknownNameError
from lightkv.session import Session
from tests.wrong_inputs.case import PICTURE, QUESTION, REQUEST, Wrong, wrong


def questions() -> Iterator[Wrong]:
    """Pictures, questions and turns that can't be asked."""
    turn = ("what color is the circle ?", "red")
    asked: dict[str, tuple[Any, Any, Any, str]] = {
        "no picture": (None, QUESTION, (), "NoneType"),
        "a picture that is a number": (3, QUESTION, (), "int"),
        "a missing file": ("no-such-file.png", QUESTION, (), "no image file"),
        "a folder": (".", QUESTION, (), "can't be read"),
        "a file that is not a picture": (__file__, QUESTION, (), "can't be read"),
        "a grey array": (np.zeros((8, 8), np.uint8), QUESTION, (), "(H, W, 3)"),
        "a float array": (np.zeros((8, 8, 3)), QUESTION, (), "uint8"),
        "an array without pixels": (np.zeros((0, 8, 3), np.uint8), QUESTION, (), "(0, 8, 3)"),
        "a tensor": (torch.zeros(3, 8, 8), QUESTION, (), "Tensor"),
        "a list with None": ([PICTURE, None], QUESTION, (), "NoneType"),
        "an empty question": (PICTURE, "", (), "empty"),
        "a blank question": (PICTURE, " \n", (), "empty"),
        "no question": (PICTURE, None, (), "NoneType"),
        "a list of questions": (PICTURE, [QUESTION], (), "list"),
        "bytes": (PICTURE, b"what ?", (), "bytes"),
        "the mark of a picture": (PICTURE, "what is in <image> ?", (), "<image>"),
        "a mark in an earlier question": (PICTURE, QUESTION, (("<image> ?", "red"),), "<image>"),
        "a mark in an earlier answer": (PICTURE, QUESTION, ((QUESTION, "<image>"),), "<image>"),
        "a history in words": (PICTURE, QUESTION, "red", "(question, answer) pairs"),
        "a history of one pair": (PICTURE, QUESTION, turn, "turn 0"),
        "a turn of three": (PICTURE, QUESTION, ((*turn, "why"),), "turn 0"),
        "an answer that is a number": (PICTURE, QUESTION, ((QUESTION, 3),), "answer 0"),
        "an empty earlier question": (PICTURE, QUESTION, (("", "red"),), "question 0"),
        "a question of 5,000 words": (PICTURE, "red " * 5000, (), "trained to 1,024"),
    }
    for name, (image, question, history, word) in asked.items():
        yield wrong(
            f"ask: {name}",
            InputError,
            word,
            lambda vlm, i=image, q=question, h=history: vlm.ask(i, q, history=h),
        )
    several: dict[str, tuple[Any, str]] = {
        "nothing": ([], "no request"),
        "one request": (REQUEST, "a list of Request"),
        "a text": (QUESTION, "a list of Request"),
        "None": (None, "a list of Request"),
        "a list of texts": ([QUESTION], "request 0"),
        "a pair": ([(PICTURE, QUESTION)], "request 0"),
        "images that are not a tuple": ([Request(PICTURE, QUESTION)], "(image,)"),
        "an empty system sentence": ([Request((), QUESTION, (), " ")], "system"),
        "a system sentence that is a number": ([Request((), QUESTION, (), 3)], "system"),
    }
    for name, (requests, word) in several.items():
        yield wrong(
            f"ask_many: {name}",
            InputError,
            word,
            lambda vlm, r=requests: vlm.ask_many(r),
        )
        yield wrong(
            f"session: {name}",
            InputError,
            word,
            lambda vlm, r=requests: Session(vlm).ask(r),
        )
    yield wrong(
        "session: read without a picture",
        InputError,
        "needs an image",
        lambda vlm: Session(vlm).read([Request((), QUESTION)]),
    )
    yield wrong(
        "ask: a method that needs a picture",
        InputError,
        "vision token",
        lambda vlm: vlm.ask([], QUESTION, TGVKV()),
    )


def pictures() -> Iterator[Wrong]:
    """Generated questions and tasks."""
    made: dict[str, tuple[type[LightKVError], str, Callable[[], Any]]] = {
        "items: an unknown kind": (UnknownNameError, "color", lambda: items("colour", 1)),
        "items: a kind that is a number": (UnknownNameError, "color", lambda: items(3, 1)),
        "items: -1": (InvalidValueError, "at least 0", lambda: items("read", -1)),
        "items: 1.5": (InvalidValueError, "a whole number", lambda: items("read", 1.5)),
        "items: seed=-1": (InvalidValueError, "seed", lambda: items("read", 1, seed=-1)),
        "items: seed='0'": (InvalidValueError, "seed", lambda: items("read", 1, seed="0")),
        "items: numbers=(2, 1)": (
            InvalidValueError,
            "numbers",
            lambda: items("read", 1, numbers=(2, 1)),
        ),
        "items: numbers=2": (InvalidValueError, "numbers", lambda: items("read", 1, numbers=2)),
        "conversations: -1": (InvalidValueError, "at least 0", lambda: conversations(-1)),
        "conversations: no turns": (InvalidValueError, "turns", lambda: conversations(1, turns=0)),
        "conversations: 13 turns": (
            InvalidValueError,
            "turns",
            lambda: conversations(1, turns=13),
        ),
        "task: an unknown one": (UnknownNameError, "embedded", lambda: task("embeded:read")),
        "task: an unknown kind": (UnknownNameError, "read", lambda: task("embedded:reed")),
    }
    for name, (error, word, make) in made.items():
        yield wrong(name, error, word, lambda vlm, make=make: make())
