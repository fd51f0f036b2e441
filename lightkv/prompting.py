"""What a user asks: images, videos, a question, earlier turns."""

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
    """A question about some images or videos, perhaps after earlier turns.

    Attributes:
        images: PIL images, (H, W, 3) uint8 arrays or paths; none for text only.
        question: The question; not empty.
        history: Earlier (question, answer) turns; images and videos belong to the first.
        system: System sentence, None for the template's own.
        videos: Videos after the images, each a list of frames of one size, which are what
            ``images`` may hold. All frames are read; the model takes them for frames at the rate
            that its processor assumes.
    """

    images: tuple[Any, ...]
    question: str
    history: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    videos: tuple[Sequence[Any], ...] = ()

    def check(self) -> None:
        """Refuse what no processor could make a prompt of.

        Raises:
            InputError: If a question is empty, or anything is of a wrong type.
        """
        if not isinstance(self.images, list | tuple):
            raise InputError(
                f"images is of type {type(self.images).__name__}; give a tuple of images, (image,) "
                "for one"
            )
        self._check_videos()
        if not isinstance(self.history, list | tuple):
            raise InputError(
                f"history is of type {type(self.history).__name__}; give (question, answer) pairs"
            )
        for number, turn in enumerate(self.history):
            if not isinstance(turn, list | tuple) or len(turn) != 2:
                raise InputError(
                    f"turn {number} of the history is {turn!r}; give (question, answer) pairs"
                )
            _check_text(f"question {number} of the history", turn[0])
            if not isinstance(turn[1], str):
                raise InputError(
                    f"answer {number} of the history is of type {type(turn[1]).__name__}; give a "
                    "text"
                )
        _check_text("the question", self.question)
        if self.system is not None:
            _check_text("the system sentence", self.system)

    def _check_videos(self) -> None:
        if not isinstance(self.videos, list | tuple):
            raise InputError(
                f"videos is of type {type(self.videos).__name__}; give a tuple of lists of frames, "
                "(frames,) for one"
            )
        for number, frames in enumerate(self.videos):
            if not isinstance(frames, list | tuple):
                raise InputError(
                    f"video {number} is of type {type(frames).__name__}; give a list of frames"
                )
            if not frames:
                raise InputError(f"video {number} has no frame; give at least one")

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that the user wrote."""
        system = () if self.system is None else (self.system,)
        return (*system, *(text for turn in self.history for text in turn), self.question)

    def messages(self) -> list[dict[str, Any]]:
        """The chat in the form that ``apply_chat_template`` takes."""
        chat: list[dict[str, Any]] = []
        if self.system is not None:
            chat.append({"role": "system", "content": [_text(self.system)]})
        images: list[dict[str, Any]] = [{"type": "image"}] * len(self.images)
        pictures = [*images, *[{"type": "video"}] * len(self.videos)]
        for question, answer in self.history:
            chat.append({"role": "user", "content": [*pictures, _text(question)]})
            chat.append({"role": "assistant", "content": [_text(answer)]})
            pictures = []
        chat.append({"role": "user", "content": [*pictures, _text(self.question)]})
        return chat


def check_requests(requests: Any) -> None:
    """Refuse what is not a list of requests.

    Raises:
        InputError: If it is something else or empty, or a request can't be asked.
    """
    if not isinstance(requests, list | tuple):
        raise InputError(
            f"the requests are of type {type(requests).__name__}; give a list of Request(images, "
            "question)"
        )
    if not requests:
        raise InputError("no request given; pass at least one question")
    for number, request in enumerate(requests):
        if not isinstance(request, Request):
            raise InputError(
                f"request {number} is of type {type(request).__name__}; give Request(images, "
                "question)"
            )
        request.check()


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} is of type {type(text).__name__}; give a text")
    if not text.strip():
        raise InputError(f"{name} is empty; write something")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def read_video(frames: Sequence[Any]) -> list[Image.Image]:
    """RGB pictures of one size from the frames of a video.

    Raises:
        InputError: If a frame can't be read, or sizes differ.
    """
    pictures = [read_image(frame) for frame in frames]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise InputError(
            f"the frames of a video differ in size, {sizes[0]} and {sizes[-1]} (width, height); "
            "resize them to one"
        )
    return pictures


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
        f"an image is of type {type(image).__name__}; give a PIL image, an (H, W, 3) uint8 array "
        "or a path"
    )
