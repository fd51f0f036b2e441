"""What a user asks: images, a question, earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from lightkv.errors import InputError

QUESTION_FIRST: Final = "question-first"
QUESTION_AGNOSTIC: Final = "question-agnostic"
SECOND_TURN: Final = "second-turn"


@dataclass(frozen=True)
class Request:
    """A question about some images, perhaps after earlier turns.

    Attributes:
        images: PIL images, (H, W, 3) uint8 arrays or paths; none for text only.
        question: The question; not empty.
        history: Earlier (question, answer) turns; the images belong to the first.
        system: System sentence, None for the template's own.
    """

    images: tuple[Any, ...]
    question: str
    history: tuple[tuple[str, str], ...] = ()
    system: str | None = None

    def check(self) -> None:
        """Raise :class:`InputError` if a question is no text or empty."""
        for question in (self.question, *(turn[0] for turn in self.history)):
            if not isinstance(question, str):
                raise InputError(f"the question is of type {type(question).__name__}; give a str")
            if not question.strip():
                raise InputError("the question is empty; ask something")

    def messages(self) -> list[dict[str, Any]]:
        """The chat in the form that ``apply_chat_template`` takes."""
        chat: list[dict[str, Any]] = []
        if self.system is not None:
            chat.append({"role": "system", "content": [_text(self.system)]})
        pictures: Sequence[dict[str, Any]] = [{"type": "image"}] * len(self.images)
        for question, answer in self.history:
            chat.append({"role": "user", "content": [*pictures, _text(question)]})
            chat.append({"role": "assistant", "content": [_text(answer)]})
            pictures = []
        chat.append({"role": "user", "content": [*pictures, _text(self.question)]})
        return chat


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def read_image(image: Any) -> Image.Image:
    """An RGB picture from a PIL image, an array or a path.

    Raises:
        InputError: If it is none of them, empty, or the file can't be read.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an image array must be (H, W, 3) uint8; this is {image.shape} {image.dtype}"
            )
        return Image.fromarray(image)
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                return opened.convert("RGB")
        except FileNotFoundError as error:
            raise InputError(f"no image file at {str(image)!r}") from error
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{str(image)!r} can't be read as an image: {error}") from error
    raise InputError(
        f"an image of type {type(image).__name__}; give a PIL image, an (H, W, 3) uint8 array "
        "or a path"
    )
