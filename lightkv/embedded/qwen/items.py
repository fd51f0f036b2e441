"""Held-out items of the native-resolution model: pictures of any aspect ratio, pairs and videos.

As with the square model's items, every random stream is keyed by its purpose before its seed, so
training and items never draw from the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightkv.contract.checks import check_count
from lightkv.embedded import scenes
from lightkv.embedded.canvas import Canvas
from lightkv.embedded.question_kinds import picture_of
from lightkv.embedded.questions import SHORT, Stream
from lightkv.embedded.qwen.architecture import FRAMES
from lightkv.embedded.qwen.batches import REGISTRIES, SORTS, draw_canvas
from lightkv.embedded.qwen.containers import Sort
from lightkv.embedded.qwen.legends import MOST_DEFINITIONS, Legend, draw_legend
from lightkv.embedded.qwen.pairs import Pair, share_a_shape
from lightkv.embedded.qwen.videos import sample_videos
from lightkv.embedded.registry import Question
from lightkv.embedded.scenes import Scenes
from lightkv.errors import UnknownNameError

KINDS: Final = tuple(kind for sort in SORTS for kind in REGISTRIES[sort].kinds)
"""Kinds of questions: those of the square model, then ``legend``, the video kinds, ``compare``."""
LARGEST_SIDE: Final = 24
LARGEST_OF_PAIR: Final = 16
LARGEST_OF_VIDEO: Final = 12
MOST_STEPS: Final = 6
MOST_TOKENS: Final = 576
_SHAPES: Final = (3, 6)
_NUMBERS: Final = (1, 2)

Cells = frozenset[tuple[int, int, int]]


@dataclass(frozen=True)
class NativeItem:
    """One held-out question.

    Attributes:
        images: The pictures, none for a video.
        frames: The frames of the video, 4 to 12; none for pictures.
        question: The user's text, for ``legend`` with the passage before the question.
        answer: The expected text, words separated by single spaces.
        kind: One of :data:`KINDS`.
        index: Position in its stream.
        cells: (grid, row, column) of the vision tokens that show the objects asked about; a grid
            is a picture of the prompt or two frames of the video, a token 8 x 8 pixels.
        hint: Whether the text contains an answer that is ``right`` or ``wrong``, else ``none``.
        paraphrased: Whether the question is worded in another than the first of several ways.
        earlier: Another question about the same, for conversations in which this one comes second.
    """

    images: tuple[Image.Image, ...]
    frames: tuple[Image.Image, ...]
    question: str
    answer: str
    kind: str
    index: int
    cells: Cells
    hint: str = "none"
    paraphrased: bool = False
    earlier: str = ""


def native_items(kind: str, count: int, *, seed: int = 0) -> list[NativeItem]:
    """The first ``count`` held-out items of a kind; item ``i`` does not depend on ``count``.

    Raises:
        UnknownNameError: If there is no such kind.
        InvalidValueError: If a number is out of range or not whole.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownNameError("question kind", kind, KINDS)
    check_count("count", count, least=0)
    check_count("seed", seed, least=0)
    code = KINDS.index(kind)
    return [_item(kind, (Stream.NATIVE_ITEMS, seed, code, index), index) for index in range(count)]


def sort_of(kind: str) -> Sort:
    """What a kind is about."""
    return next(sort for sort in SORTS if kind in REGISTRIES[sort].functions)


def _item(kind: str, key: tuple[int, ...], index: int) -> NativeItem:
    rng = np.random.default_rng(key)
    sort = sort_of(kind)
    while True:
        seen, subject, passage = _DRAWERS[sort](rng)
        question = REGISTRIES[sort].ask(kind, rng, subject)
        if question is not None:
            item = _finish(rng, kind, index, question, seen, passage)
            # A stream of its own, so that items are what they were without it.
            earlier = _earlier(kind, np.random.default_rng((Stream.EARLIER, *key)), subject)
            return replace(item, earlier=earlier)


def _earlier(kind: str, rng: np.random.Generator, subject: Any) -> str:
    """A short question that needs no passage and has no hint."""
    sort = sort_of(kind)
    if isinstance(subject, Legend):
        sort, subject = "picture", subject.picture
    registry = REGISTRIES[sort]
    names = SHORT if sort == "picture" else tuple(registry.helpers)
    while True:
        question = registry.ask(str(rng.choice([n for n in names if n != kind])), rng, subject)
        if question is not None:
            return question.text


def _finish(
    rng: np.random.Generator,
    kind: str,
    index: int,
    question: Question,
    seen: list[Scenes],
    passage: str,
) -> NativeItem:
    video = sort_of(kind) == "video"
    pictures: list[NDArray[np.uint8]] = []
    cells: set[tuple[int, int, int]] = set()
    numbered, grid = 0, 0
    for drawn in seen:
        count = len(drawn)
        ground = np.repeat(scenes.background(rng, 1, drawn.canvas), count, 0)
        pictures += list(scenes.render(rng, drawn, ground))
        owner, _ = scenes.coverage(drawn)
        for one in owner:
            size = drawn.canvas.cells
            about = [c - numbered for c in question.about if 0 <= c - numbered < size]
            for row, column in np.argwhere(np.isin(one, about)):
                cells.add((grid, int(row), int(column)))
            numbered += drawn.canvas.cells
            grid += 1
    images = tuple(Image.fromarray(picture) for picture in pictures)
    return NativeItem(
        images=() if video else images,
        frames=tuple(image for image in images for _ in range(FRAMES)) if video else (),
        question=f"{passage} {question.text}".strip(),
        answer=question.answer,
        kind=kind,
        index=index,
        cells=frozenset(cells),
        hint=question.hint,
        paraphrased=question.paraphrased,
    )


Drawn = tuple[list[Scenes], Any, str]


def _scene(rng: np.random.Generator, canvas: Canvas) -> Scenes:
    return scenes.sample(rng, 1, shapes=_SHAPES, numbers=_NUMBERS, canvas=canvas)


def _draw_picture(rng: np.random.Generator) -> Drawn:
    drawn = _scene(rng, draw_canvas(rng, LARGEST_SIDE))
    return [drawn], picture_of(drawn), ""


def _draw_legend(rng: np.random.Generator) -> Drawn:
    drawn = _scene(rng, draw_canvas(rng, LARGEST_SIDE))
    legend = draw_legend(rng, picture_of(drawn), MOST_DEFINITIONS)
    return [drawn], legend, legend.passage


def _draw_video(rng: np.random.Generator) -> Drawn:
    canvas = draw_canvas(rng, LARGEST_OF_VIDEO)
    steps = int(rng.integers(2, min(MOST_STEPS, MOST_TOKENS // canvas.patches) + 1))
    drawn, (video,) = sample_videos(rng, 1, canvas, steps)
    return [drawn], video, ""


def _draw_pair(rng: np.random.Generator) -> Drawn:
    first, second = (_scene(rng, draw_canvas(rng, LARGEST_OF_PAIR)) for _ in range(2))
    second = share_a_shape(rng, first, second)
    return [first, second], Pair(picture_of(first), picture_of(second)), ""


_DRAWERS: Final = {
    "picture": _draw_picture,
    "legend": _draw_legend,
    "video": _draw_video,
    "pair": _draw_pair,
}
