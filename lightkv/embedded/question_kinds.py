"""Question kinds about the generated pictures.

A kind is one function from a random generator and a picture to a question, registered in
:data:`PICTURES` with one decorator line. ``@question_kind`` adds it to :data:`QUESTION_KINDS`;
``@helper`` registers a question that only training asks. A function returns None where the picture
does not allow the question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from lightkv.embedded.canvas import SQUARE, Canvas
from lightkv.embedded.registry import Question, Registry
from lightkv.embedded.scenes import EMPTY, NUMBER, Scenes
from lightkv.embedded.vocabulary import (
    COLORS,
    PLACES,
    PLURALS,
    REFUSAL,
    SHAPES,
    UNKNOWN,
    WORDS,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One object of a picture: its cell and the cell's name, kind, color and (numbers) digits."""

    cell: int
    kind: int
    color: int
    digits: tuple[int, ...] = ()
    where: str = ""

    @property
    def name(self) -> str:
        return "number" if self.kind == NUMBER else SHAPES[self.kind]

    @property
    def color_name(self) -> str:
        return COLORS[self.color]

    @property
    def reading(self) -> str:
        return " ".join(map(str, self.digits))


@dataclass(frozen=True)
class Picture:
    """The objects of one picture in reading order, and the canvas they stand on."""

    shapes: tuple[Thing, ...]
    numbers: tuple[Thing, ...]
    canvas: Canvas = SQUARE

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(sorted(self.shapes + self.numbers, key=lambda thing: thing.cell))


PICTURES: Final[Registry[Picture]] = Registry()
question_kind, helper, ask = PICTURES.kind, PICTURES.helper, PICTURES.ask


def picture_of(scenes: Scenes, index: int = 0) -> Picture:
    """The objects of picture ``index`` of a batch."""
    shapes, numbers = [], []
    canvas = scenes.canvas
    for cell in range(canvas.cells):
        kind, color = int(scenes.kind[index, cell]), int(scenes.color[index, cell])
        if kind == NUMBER:
            digits = tuple(int(digit) for digit in scenes.digits[index, cell])
            numbers.append(Thing(cell, kind, color, digits, canvas.place(cell)))
        elif kind != EMPTY:
            shapes.append(Thing(cell, kind, color, where=canvas.place(cell)))
    return Picture(tuple(shapes), tuple(numbers), canvas)


def pick(rng: np.random.Generator, options: tuple[T, ...] | list[T]) -> T | None:
    """One of the options, None if there are none."""
    return options[rng.integers(len(options))] if options else None


def once(things: tuple[Thing, ...], key: Callable[[Thing], object]) -> list[Thing]:
    """The things whose key no other thing shares."""
    keys = [key(thing) for thing in things]
    return [thing for thing, value in zip(things, keys, strict=True) if keys.count(value) == 1]


@question_kind("color")
def _color(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, once(picture.shapes, lambda shape: shape.kind))
    if thing is None:
        return None
    return Question(f"what color is the {thing.name} ?", thing.color_name, (thing.cell,))


@question_kind("shape_at")
def _shape_at(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.shapes)
    if thing is None:
        return None
    return Question(f"what shape is at the {thing.where} ?", thing.name, (thing.cell,))


@question_kind("count")
def _count(rng: np.random.Generator, picture: Picture) -> Question | None:
    """Zero to five shapes of a color or of a kind, the number drawn first to flatten it."""
    options: dict[int, list[Question]] = {}
    by_color = rng.random() < 0.5
    for index in range(len(COLORS if by_color else SHAPES)):
        what = f"{COLORS[index]} shapes" if by_color else PLURALS[SHAPES[index]]
        match = [s.cell for s in picture.shapes if (s.color if by_color else s.kind) == index]
        question = Question(f"how many {what} ?", str(len(match)), tuple(match))
        options.setdefault(len(match), []).append(question)
    amount = pick(rng, sorted(amount for amount in options if amount <= 5))
    return None if amount is None else pick(rng, options[amount])


@question_kind("exist")
def _exist(rng: np.random.Generator, picture: Picture) -> Question | None:
    """Half yes, half no; most absent pairs combine a color and a kind that are both present."""
    wanted = pick(rng, picture.shapes)
    if wanted is None:
        return None
    present = {(shape.kind, shape.color) for shape in picture.shapes}
    if rng.random() < 0.5:
        same = [s.cell for s in picture.shapes if (s.kind, s.color) == (wanted.kind, wanted.color)]
        text = f"is there a {wanted.color_name} {wanted.name} ?"
        return Question(text, "yes", tuple(same))
    kinds = sorted({kind for kind, _ in present})
    colors = sorted({color for _, color in present})
    near = [(k, c) for k in kinds for c in colors if (k, c) not in present]
    far = [(k, c) for k in range(len(SHAPES)) for c in range(len(COLORS)) if (k, c) not in present]
    pair = pick(rng, near if near and rng.random() < 0.6 else far)
    if pair is None:
        return None
    return Question(f"is there a {COLORS[pair[1]]} {SHAPES[pair[0]]} ?", "no")


@question_kind("where")
def _where(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, once(picture.shapes, lambda shape: (shape.kind, shape.color)))
    if thing is None:
        return None
    return Question(f"where is the {thing.color_name} {thing.name} ?", thing.where, (thing.cell,))


@question_kind("read")
def _read(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.numbers)
    if thing is None:
        return None
    return Question(f"what is the {thing.color_name} number ?", thing.reading, (thing.cell,))


@question_kind("list")
def _list(rng: np.random.Generator, picture: Picture) -> Question | None:
    if not picture.shapes:
        return None
    colors = " ".join(shape.color_name for shape in picture.shapes)
    cells = tuple(shape.cell for shape in picture.shapes)
    return Question("list the colors of the shapes .", colors, cells)


@question_kind("caption")
def _caption(rng: np.random.Generator, picture: Picture) -> Question | None:
    if not picture.things:
        return None
    parts = [f"{thing.where} {thing.color_name} {thing.name}" for thing in picture.things]
    cells = tuple(thing.cell for thing in picture.things)
    return Question("describe the image .", " , ".join(parts), cells)


@helper("number_where")
def _number_where(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.numbers)
    if thing is None:
        return None
    return Question(f"where is the {thing.color_name} number ?", thing.where, (thing.cell,))


@helper("number_at")
def _number_at(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.numbers)
    if thing is None:
        return None
    return Question(f"what number is at the {thing.where} ?", thing.reading, (thing.cell,))


@helper("color_at")
def _color_at(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.things)
    if thing is None:
        return None
    return Question(f"what color is at the {thing.where} ?", thing.color_name, (thing.cell,))


@helper("digit")
def _digit(rng: np.random.Generator, picture: Picture) -> Question | None:
    thing = pick(rng, picture.numbers)
    if thing is None:
        return None
    place = int(rng.integers(len(PLACES)))
    text = f"what is the {PLACES[place]} digit of the {thing.color_name} number ?"
    return Question(text, str(thing.digits[place]), (thing.cell,))


@helper("absent")
def _absent(rng: np.random.Generator, picture: Picture) -> Question | None:
    """A well-formed question about something the picture does not show."""
    kinds = {shape.kind for shape in picture.shapes}
    pairs = {(shape.kind, shape.color) for shape in picture.shapes}
    number_colors = {number.color for number in picture.numbers}
    used = {thing.cell for thing in picture.things}
    kind, color = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLORS)))
    cell = int(rng.integers(picture.canvas.cells))
    options = [
        (kind not in kinds, f"what color is the {SHAPES[kind]} ?"),
        ((kind, color) not in pairs, f"where is the {COLORS[color]} {SHAPES[kind]} ?"),
        (color not in number_colors, f"what is the {COLORS[color]} number ?"),
        (color not in number_colors, f"where is the {COLORS[color]} number ?"),
        (cell not in used, f"what shape is at the {picture.canvas.place(cell)} ?"),
    ]
    text = pick(rng, [text for allowed, text in options if allowed])
    return None if text is None else Question(text, REFUSAL)


@helper("unknown")
def _unknown(rng: np.random.Generator, picture: Picture) -> Question:
    """Words outside the vocabulary, alone, inside a known pattern, or mixed with known words."""
    patterns = (
        f"what color is the {UNKNOWN} ?",
        f"where is the {UNKNOWN} ?",
        f"how many {UNKNOWN} are there ?",
        f"is there a {UNKNOWN} in the picture ?",
        f"what is the {UNKNOWN} of the {UNKNOWN} ?",
        f"{UNKNOWN} the {UNKNOWN} .",
    )
    if rng.random() < 0.4:
        return Question(patterns[rng.integers(len(patterns))], REFUSAL)
    share = rng.random()
    words = [
        UNKNOWN if rng.random() < share else WORDS[rng.integers(5, len(WORDS))]
        for _ in range(rng.integers(1, 9))
    ]
    return Question(" ".join([*words, *(["?"] if rng.random() < 0.6 else [])]), REFUSAL)


QUESTION_KINDS: Final[tuple[str, ...]] = tuple(PICTURES.kinds)
HELPERS: Final[tuple[str, ...]] = PICTURES.helpers
