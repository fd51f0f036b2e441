"""Questions that compare two pictures of one prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lightkv.embedded import question_kinds as kinds
from lightkv.embedded.question_kinds import Picture, pick
from lightkv.embedded.registry import Question, Registry
from lightkv.embedded.scenes import EMPTY, NUMBER, Scenes
from lightkv.embedded.vocabulary import COLORS, PLURALS, SHAPES

PAIRS: Final[Registry[Pair]] = Registry()
_NAMES: Final = ("first", "second")
_ABOUT_ONE: Final = ("color", "shape_at", "where", "exist")


@dataclass(frozen=True)
class Pair:
    """Two pictures; the cells of the second are numbered on after those of the first."""

    first: Picture
    second: Picture

    @property
    def both(self) -> tuple[Picture, Picture]:
        return self.first, self.second

    def cells(self, number: int, cells: tuple[int, ...]) -> tuple[int, ...]:
        """Cells of picture ``number`` (0 or 1) as numbered in the pair."""
        return tuple(cell + number * self.first.canvas.cells for cell in cells)


def share_a_shape(rng: np.random.Generator, first: Scenes, second: Scenes) -> Scenes:
    """``second`` with one of its shapes, where both have some, made equal to one of ``first``."""
    kind, color = second.kind.copy(), second.color.copy()
    for b in range(len(first)):
        mine = np.flatnonzero((kind[b] != EMPTY) & (kind[b] != NUMBER))
        theirs = np.flatnonzero((first.kind[b] != EMPTY) & (first.kind[b] != NUMBER))
        if len(mine) and len(theirs):
            to, source = rng.choice(mine), rng.choice(theirs)
            kind[b, to], color[b, to] = first.kind[b, source], first.color[b, source]
    return replace(second, kind=kind, color=color)


@PAIRS.kind("compare")
def _compare(rng: np.random.Generator, pair: Pair) -> Question | None:
    """Which picture shows a thing, or has more of a sort; the answer is drawn first."""
    options = _shows(pair) if rng.random() < 0.5 else _more(pair)
    answer = pick(rng, sorted(options))
    return None if answer is None else pick(rng, options[answer])


@PAIRS.helper("of_one")
def _of_one(rng: np.random.Generator, pair: Pair) -> Question | None:
    """A question about one of the pictures."""
    number = int(rng.integers(2))
    question = kinds.ask(str(rng.choice(_ABOUT_ONE)), rng, pair.both[number])
    if question is None:
        return None
    text = question.text.removesuffix("?") + f"in the {_NAMES[number]} picture ?"
    return Question(text, question.answer, pair.cells(number, question.about))


def _shows(pair: Pair) -> dict[str, list[Question]]:
    """Questions about a thing that at least one shows, or of which none does, by answer."""
    cells: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for number, picture in enumerate(pair.both):
        for shape in picture.shapes:
            entry = cells.setdefault((shape.kind, shape.color), [(), ()])
            entry[number] += pair.cells(number, (shape.cell,))
    options: dict[str, list[Question]] = {}
    kinds_shown = sorted({kind for kind, _ in cells})
    colors_shown = sorted({color for _, color in cells})
    for kind in kinds_shown:
        for color in colors_shown:
            first, second = cells.get((kind, color), [(), ()])
            answer = _who(bool(first), bool(second))
            text = f"which picture shows a {COLORS[color]} {SHAPES[kind]} ?"
            options.setdefault(answer, []).append(Question(text, answer, first + second))
    return options


def _who(first: bool, second: bool) -> str:
    if first and second:
        return "both"
    return _NAMES[int(second)] if first or second else "none"


def _more(pair: Pair) -> dict[str, list[Question]]:
    """Questions about the numbers of shapes of a color or of a kind, by answer."""
    options: dict[str, list[Question]] = {}
    names = [f"{color} shapes" for color in COLORS] + [PLURALS[shape] for shape in SHAPES]
    for index, name in enumerate(names):
        groups = []
        for number, picture in enumerate(pair.both):
            by_color = index < len(COLORS)
            wanted = index if by_color else index - len(COLORS)
            match = [s.cell for s in picture.shapes if (s.color if by_color else s.kind) == wanted]
            groups.append(pair.cells(number, tuple(match)))
        first, second = groups
        if first or second:
            alike = len(first) == len(second)
            answer = "same" if alike else _NAMES[int(len(second) > len(first))]
            text = f"which picture has more {name} ?"
            options.setdefault(answer, []).append(Question(text, answer, first + second))
    return options
