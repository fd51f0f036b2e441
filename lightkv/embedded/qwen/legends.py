"""Questions in code words that a passage explains: they need the text and the picture.

The passage says what every code word means (``a blip is a red ring , ...``); it may define words
for things that the picture does not show, and need not define all that it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lightkv.embedded.question_kinds import Picture, Thing, pick
from lightkv.embedded.registry import Question, Registry
from lightkv.embedded.vocabulary import CODE_WORDS, COLORS, SHAPES

Pair = tuple[int, int]
EVERY_PAIR: Final[tuple[Pair, ...]] = tuple(
    (shape, color) for shape in range(len(SHAPES)) for color in range(len(COLORS))
)
"""Every shape and color that a code word can stand for."""

LEAST_DEFINITIONS: Final = 2
"""With one definition the passage alone would answer what is somewhere."""
MOST_DEFINITIONS: Final = len(SHAPES) * len(COLORS) - 1
LEGENDS: Final[Registry[Legend]] = Registry()
DEFINITIONS: Final[Registry[Definitions]] = Registry()
"""Asked in training, of passages without a picture."""


@dataclass(frozen=True)
class Definitions:
    """What code words mean.

    Attributes:
        words: The code words in the order of the passage.
        pairs: Shape and color that each stands for, all different.
    """

    words: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def passage(self) -> str:
        """The definitions, seven words each."""
        parts = [
            f"a {word} is a {COLORS[color]} {SHAPES[shape]}"
            for word, (shape, color) in zip(self.words, self.pairs, strict=True)
        ]
        return " , ".join(parts) + " ."


@dataclass(frozen=True)
class Legend(Definitions):
    """A picture and what the code words mean.

    Attributes:
        picture: What is seen.
    """

    picture: Picture

    def defined(self) -> list[tuple[str, list[Thing]]]:
        """Code words of what the picture shows, and the shapes each stands for."""
        named = []
        for word, pair in zip(self.words, self.pairs, strict=True):
            things = [s for s in self.picture.shapes if (s.kind, s.color) == pair]
            if things:
                named.append((word, things))
        return named


def draw_length(rng: np.random.Generator, most: int) -> int:
    """How many definitions, two to ``most``, evenly by logarithm."""
    return int(np.exp(rng.uniform(np.log(LEAST_DEFINITIONS), np.log(most + 1))))


def draw_legend(rng: np.random.Generator, picture: Picture, most: int) -> Legend:
    """Two to ``most`` definitions; about half of their room goes to what is shown."""
    count = draw_length(rng, most)
    shown = list(dict.fromkeys((shape.kind, shape.color) for shape in picture.shapes))
    absent = [pair for pair in EVERY_PAIR if pair not in shown]
    first = [shown[i] for i in rng.permutation(len(shown))][: (count + 1) // 2 + 1]
    rest = [pair for pair in shown if pair not in first] + absent
    pairs = (first + [rest[i] for i in rng.permutation(len(rest))])[:count]
    pairs = [pairs[i] for i in rng.permutation(count)]
    return Legend(_code_words(rng, count), tuple(pairs), picture)


def draw_definitions(rng: np.random.Generator, most: int) -> Definitions:
    """Two to ``most`` definitions of anything."""
    count = draw_length(rng, most)
    pairs = tuple(EVERY_PAIR[i] for i in rng.permutation(len(EVERY_PAIR))[:count])
    return Definitions(_code_words(rng, count), pairs)


def _code_words(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    return tuple(CODE_WORDS[i] for i in rng.permutation(len(CODE_WORDS))[:count])


@LEGENDS.kind("legend")
def _legend(rng: np.random.Generator, legend: Legend) -> Question | None:
    """Where is it, is it there, or what is there, evenly."""
    match rng.integers(3):
        case 0:
            return _where(rng, legend)
        case 1:
            return _exist(rng, legend)
        case _:
            return _name_at(rng, legend)


@LEGENDS.helper("legend_word")
@DEFINITIONS.helper("meaning")
def _meaning(rng: np.random.Generator, legend: Definitions) -> Question:
    """What a code word means: the passage alone answers."""
    index = int(rng.integers(len(legend.words)))
    shape, color = legend.pairs[index]
    return Question(f"what is a {legend.words[index]} ?", f"{COLORS[color]} {SHAPES[shape]}")


@DEFINITIONS.helper("code_word")
def _code_word(rng: np.random.Generator, definitions: Definitions) -> Question:
    """Which code word stands for something."""
    index = int(rng.integers(len(definitions.words)))
    shape, color = definitions.pairs[index]
    return Question(f"what is a {COLORS[color]} {SHAPES[shape]} ?", definitions.words[index])


def _where(rng: np.random.Generator, legend: Legend) -> Question | None:
    single = [(word, things[0]) for word, things in legend.defined() if len(things) == 1]
    option = pick(rng, single)
    if option is None:
        return None
    word, thing = option
    return Question(f"where is the {word} ?", thing.where, (thing.cell,))


def _exist(rng: np.random.Generator, legend: Legend) -> Question | None:
    """Half yes, half no."""
    present = legend.defined()
    names = {word for word, _ in present}
    absent = [word for word in legend.words if word not in names]
    if rng.random() < 0.5:
        option = pick(rng, present)
        if option is None:
            return None
        word, things = option
        return Question(f"is there a {word} ?", "yes", tuple(thing.cell for thing in things))
    other = pick(rng, absent)
    return None if other is None else Question(f"is there a {other} ?", "no")


def _name_at(rng: np.random.Generator, legend: Legend) -> Question | None:
    shown = [(word, thing) for word, things in legend.defined() for thing in things]
    option = pick(rng, shown)
    if option is None:
        return None
    word, thing = option
    return Question(f"what is at the {thing.where} ?", word, (thing.cell,))
