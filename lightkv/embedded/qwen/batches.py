"""Training batches of one sort: pictures, legends, videos, pairs or text, of one size each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lightkv.embedded import question_kinds as pictures
from lightkv.embedded import scenes
from lightkv.embedded.batches import NO_TURN, Columns, TextSettings, pack
from lightkv.embedded.canvas import Canvas
from lightkv.embedded.qwen.containers import Batch, Sort, View
from lightkv.embedded.qwen.legends import (
    DEFINITIONS,
    LEGENDS,
    draw_definitions,
    draw_legend,
    draw_length,
)
from lightkv.embedded.qwen.pairs import PAIRS, Pair, share_a_shape
from lightkv.embedded.qwen.prompts import prompt_words
from lightkv.embedded.qwen.video_kinds import VIDEOS
from lightkv.embedded.qwen.videos import sample_videos
from lightkv.embedded.registry import Question, Registry
from lightkv.embedded.scenes import Scenes
from lightkv.embedded.vocabulary import UNKNOWN_ID, WORDS, encode

SORTS: Final[tuple[Sort, ...]] = ("picture", "legend", "video", "pair", "text")
REGISTRIES: Final[dict[Sort, Registry[Any]]] = {
    "picture": pictures.PICTURES,
    "legend": LEGENDS,
    "video": VIDEOS,
    "pair": PAIRS,
    "text": DEFINITIONS,
}
NAMES: Final = tuple(name for sort in SORTS for name in REGISTRIES[sort].functions)
"""Every question there is."""
_CHUNK: Final = 16
_SYSTEM: Final = slice(3, 7)
_DEFINITION: Final = 7
_MOST_TOKENS: Final = 576
_SHORTEST: Final = 8


@dataclass(frozen=True)
class Difficulty:
    """What a part of the training draws.

    Attributes:
        shapes: Inclusive range of shapes per picture.
        numbers: Inclusive range of numbers per picture.
        side: Most patches a side of a picture, 8 to 24.
        background: Vision tokens in use beside those that show objects; None for all.
        definitions: Most definitions of a legend.
        objects: Most objects of a video.
        helpers: Share of questions about legends, videos and pairs that only training asks; of
            text alone it asks nothing else.
        sorts: Relative frequency of the sorts of batches.
        text: How the questions about pictures are drawn and packed; ``length`` is that of
            questions, a legend comes on top.
        tokens: Vision and text tokens of a batch, about.
    """

    shapes: tuple[int, int]
    numbers: tuple[int, int]
    side: int
    background: int | None
    definitions: int
    objects: int
    helpers: float
    sorts: Mapping[Sort, float]
    text: TextSettings
    tokens: int


def patch_batch(rng: np.random.Generator, difficulty: Difficulty) -> View:
    """Pictures with their labels alone, for teaching the tower."""
    canvas = draw_canvas(rng, difficulty.side)
    count = max(1, difficulty.tokens // canvas.patches)
    drawn = _scenes(rng, count, difficulty, canvas)
    return _view(rng, drawn, 1, None)


def make_batch(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    """Draw a sort, a size, and as many prompts as the budget of tokens allows."""
    share = np.array([difficulty.sorts.get(sort, 0.0) for sort in SORTS])
    sort = SORTS[rng.choice(len(SORTS), p=share / share.sum())]
    return _MAKERS[sort](rng, difficulty)


def draw_canvas(rng: np.random.Generator, side: int) -> Canvas:
    """Both sides evenly from 8 to ``side`` patches."""
    return Canvas(*(int(length) for length in rng.integers(_SHORTEST, side + 1, 2)))


def _pictures(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    canvas = draw_canvas(rng, difficulty.side)
    count = _count(difficulty, canvas.patches, difficulty.text.length)
    drawn = _scenes(rng, count, difficulty, canvas)
    subjects = [pictures.picture_of(drawn, index) for index in range(count)]
    views = (_view(rng, drawn, 1, difficulty.background),)
    return _finish(rng, "picture", difficulty.text, subjects, views)


def _legends(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    canvas = draw_canvas(rng, difficulty.side)
    most = draw_length(rng, difficulty.definitions)
    passage = most * _DEFINITION
    text = TextSettings(passage + 72, _weights(LEGENDS, difficulty.helpers), caption=0.0)
    count = _count(difficulty, canvas.patches, text.length)
    drawn = _scenes(rng, count, difficulty, canvas)
    subjects = [draw_legend(rng, pictures.picture_of(drawn, index), most) for index in range(count)]
    passages = [encode(legend.passage) for legend in subjects]
    views = (_view(rng, drawn, 1, difficulty.background),)
    return _finish(rng, "legend", text, subjects, views, passages)


def _videos(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    canvas = draw_canvas(rng, 12)
    steps = int(rng.integers(2, min(6, _MOST_TOKENS // canvas.patches) + 1))
    weights = _weights(VIDEOS, difficulty.helpers)
    text = TextSettings(88, weights, caption=0.0, conversation=0.25)
    count = _count(difficulty, canvas.patches * steps, text.length)
    drawn, subjects = sample_videos(rng, count, canvas, steps, difficulty.objects)
    views = (_view(rng, drawn, steps, difficulty.background),)
    return _finish(rng, "video", text, subjects, views)


def _pairs(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    canvases = [draw_canvas(rng, min(difficulty.side, 16)) for _ in range(2)]
    text = TextSettings(88, _weights(PAIRS, difficulty.helpers), caption=0.0)
    count = _count(difficulty, sum(canvas.patches for canvas in canvases), text.length)
    first, second = (_scenes(rng, count, difficulty, canvas) for canvas in canvases)
    second = share_a_shape(rng, first, second)
    subjects = [
        Pair(pictures.picture_of(first, index), pictures.picture_of(second, index))
        for index in range(count)
    ]
    views = tuple(_view(rng, drawn, 1, difficulty.background) for drawn in (first, second))
    return _finish(rng, "pair", text, subjects, views)


def _texts(rng: np.random.Generator, difficulty: Difficulty) -> Batch:
    """Passages without a picture: many questions for few tokens."""
    most = draw_length(rng, difficulty.definitions)
    text = TextSettings(most * _DEFINITION + 72, _weights(DEFINITIONS, 1.0), caption=0.0)
    count = _count(difficulty, 0, text.length)
    subjects = [draw_definitions(rng, most) for _ in range(count)]
    passages = [encode(definitions.passage) for definitions in subjects]
    return _finish(rng, "text", text, subjects, (), passages)


_MAKERS: Final = {
    "picture": _pictures,
    "legend": _legends,
    "video": _videos,
    "pair": _pairs,
    "text": _texts,
}


def _weights(registry: Registry[Any], helpers: float) -> dict[str, float]:
    """The kinds evenly, and the others evenly in a share of ``helpers``."""
    kinds = {name: (1 - helpers) / len(registry.kinds) for name in registry.kinds}
    return kinds | {name: helpers / len(registry.helpers) for name in registry.helpers}


def _scenes(rng: np.random.Generator, count: int, difficulty: Difficulty, canvas: Canvas) -> Scenes:
    return scenes.sample(
        rng, count, shapes=difficulty.shapes, numbers=difficulty.numbers, canvas=canvas
    )


def _count(difficulty: Difficulty, vision: int, text: int) -> int:
    """Prompts of a batch; with a part of the vision tokens about a third of them are in use."""
    used = vision if difficulty.background is None else min(vision, vision // 3 + 48)
    return max(2, difficulty.tokens // (used + text))


def _view(rng: np.random.Generator, drawn: Scenes, steps: int, background: int | None) -> View:
    """Pixels, labels and the patches in use; the steps of a video share their background."""
    canvas = drawn.canvas
    count = len(drawn) // steps
    pixels = np.empty((len(drawn), canvas.height, canvas.width, 3), np.uint8)
    parts: list[dict[str, NDArray[np.int64]]] = []
    chunk = max(1, _CHUNK // steps)
    for start in range(0, count, chunk):
        end = min(start + chunk, count)
        rows = slice(start * steps, end * steps)
        part = _rows(drawn, rows)
        ground = np.repeat(scenes.background(rng, end - start, canvas), steps, 0)
        pixels[rows] = scenes.render(rng, part, ground)
        parts.append(vars(scenes.patch_labels(part)))
    labels = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = choose_patches(rng, labels["kind"] > 0, background)
    shape = (count, steps, -1)
    return View(
        canvas,
        torch.from_numpy(pixels).view(count, steps, *pixels.shape[1:]),
        torch.from_numpy(kept).view(shape),
        {name: torch.from_numpy(label).view(shape) for name, label in labels.items()},
    )


def _rows(drawn: Scenes, rows: slice) -> Scenes:
    return Scenes(
        drawn.kind[rows],
        drawn.color[rows],
        drawn.digits[rows],
        drawn.radius[rows],
        drawn.center[rows],
        drawn.corner[rows],
        drawn.canvas,
    )


def choose_patches(
    rng: np.random.Generator, shown: NDArray[np.bool_], background: int | None
) -> NDArray[np.int64]:
    """Patches in use ``(M, K)``, sorted: all that show an object, then random background.

    Args:
        rng: Says which background.
        shown: Whether a patch shows an object ``(M, N)``.
        background: How many others the row with most objects gets; None for all patches.
    """
    count, patches = shown.shape
    if background is None:
        return np.tile(np.arange(patches), (count, 1))
    size = min(patches, int(shown.sum(1).max()) + background)
    order = shown + 0.999 * rng.random((count, patches), np.float32)
    return np.sort(np.argpartition(-order, size - 1, 1)[:, :size], 1).astype(np.int64)


def _finish(
    rng: np.random.Generator,
    sort: Sort,
    settings: TextSettings,
    subjects: list[Any],
    views: tuple[View, ...],
    passages: list[list[int]] | None = None,
) -> Batch:
    """Ask the questions, and write what stands around the vision tokens."""
    together = bool(rng.random() < settings.conversation)
    rows: list[Columns] = []
    registry = REGISTRIES[sort]
    for index, subject in enumerate(subjects):
        ask: Callable[[str], Question | None] = partial(registry.ask, rng=rng, subject=subject)
        passage = passages[index] if passages else ()
        rows.append(pack(rng, ask, settings, together, NAMES, passage))
    text, target, turn, position, kind, weight = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    grids = [view.pixels.shape[1] for view in views]
    words = [np.tile(part, (len(subjects), 1)) for part in prompt_words(rng, sort, grids)]
    other = rng.random(len(subjects)) < settings.other_system
    words[0][other, _SYSTEM] = rng.integers(UNKNOWN_ID, len(WORDS), (int(other.sum()), 4))
    return Batch(
        sort=sort,
        views=views,
        words=tuple(torch.from_numpy(part) for part in words),
        text=torch.from_numpy(text),
        target=torch.from_numpy(target),
        turn=torch.from_numpy(turn),
        sees=torch.from_numpy(np.where((turn < NO_TURN) & together, 1, turn)),
        position=torch.from_numpy(position),
        kind=torch.from_numpy(kind),
        weight=torch.from_numpy(weight).float(),
    )
