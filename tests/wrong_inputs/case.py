"""One wrong input: the way in, what a user might write, the error and a word of its message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lightkv import VLM, Request
from lightkv.errors import LightKVError

PICTURE = Image.new("RGB", (128, 128), "red")
QUESTION = "what color is the circle ?"
REQUEST = Request((PICTURE,), QUESTION)


@dataclass(frozen=True)
class Wrong:
    """One wrong input."""

    way: str
    do: Callable[[VLM], Any]
    error: type[LightKVError]
    word: str


def wrong(way: str, error: type[LightKVError], word: str, do: Callable[[VLM], Any]) -> Wrong:
    return Wrong(way, do, error, word)
