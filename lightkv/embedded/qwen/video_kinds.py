"""Question kinds about videos, asked in several ways, with a hint that may be right or wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from lightkv.embedded.question_kinds import Thing, ask, pick
from lightkv.embedded.qwen.videos import Video
from lightkv.embedded.registry import Question, Registry
from lightkv.embedded.vocabulary import COLORS, SHAPES

VIDEOS: Final[Registry[Video]] = Registry()
HINTS: Final = ("none", "right", "wrong")
_HINTED: Final = 0.5
"""Share of the questions with a hint; half of the hints are wrong."""
_HINT_WAYS: Final = (
    "hint : {answer} .",
    "i think it is {answer} .",
    "someone said {answer} .",
    "maybe {answer} .",
)
_ORDER_WAYS: Final = {
    "first": ("what comes first ?", "what appears first ?", "which thing is the first ?"),
    "last": ("what comes last ?", "what appears last ?", "which thing is the last ?"),
    "after": ("what comes after the {} ?", "what appears after the {} ?"),
    "before": ("what comes before the {} ?", "what appears before the {} ?"),
}
_MOVE_WAYS: Final = (
    "where does the {} go ?",
    "where is the {} at the end ?",
    "where does the {} end ?",
    "to where does the {} move ?",
)
_START_WAYS: Final = ("where is the {} at the start ?", "where does the {} start ?")
_CHANGE_WAYS: Final = ("what changes ?", "what happens ?", "what is different at the end ?")


def name(thing: Thing) -> str:
    """Color and shape of a thing."""
    return f"{thing.color_name} {thing.name}"


@VIDEOS.kind("order")
def _order(rng: np.random.Generator, video: Video) -> Question | None:
    """What comes first, last, or next to another."""
    if video.story != "order":
        return None
    things = list(video.subjects)
    at = int(rng.integers(len(things)))
    asked = [way for way, fits in _relations(at, len(things)) if fits]
    relation = asked[rng.integers(len(asked))]
    other = things[at - 1] if relation == "after" else things[(at + 1) % len(things)]
    text, paraphrased = _worded(rng, _ORDER_WAYS[relation], name(other))
    beside = [other] if relation in ("after", "before") else []
    wrong = [name(thing) for thing in things if thing not in (things[at], *beside)]
    about = video.cells([things[at]])
    question = Question(text, name(things[at]), about, paraphrased=paraphrased)
    return hinted(rng, question, wrong)


def _worded(rng: np.random.Generator, ways: tuple[str, ...], *names: str) -> tuple[str, bool]:
    """One of several wordings, and whether it is another than the first."""
    way = int(rng.integers(len(ways)))
    return ways[way].format(*names), way > 0


def _relations(at: int, count: int) -> list[tuple[str, bool]]:
    last = count - 1
    return [("first", at == 0), ("last", at == last), ("after", at > 0), ("before", at < last)]


@VIDEOS.kind("moves")
def _moves(rng: np.random.Generator, video: Video) -> Question | None:
    """Where the thing that moves ends."""
    if video.story != "moves":
        return None
    _, end = video.subjects
    text, paraphrased = _worded(rng, _MOVE_WAYS, name(end))
    canvas = video.canvas
    wrong = [canvas.place(cell) for cell in range(canvas.cells) if cell != end.cell]
    question = Question(text, end.where, video.cells([end]), paraphrased=paraphrased)
    return hinted(rng, question, wrong)


@VIDEOS.kind("changes")
def _changes(rng: np.random.Generator, video: Video) -> Question | None:
    """Which thing appears, vanishes or turns to which color."""
    if video.story != "changes":
        return None
    thing = video.subjects[0]
    answer = f"{name(thing)} {video.change}"
    if video.change == "turns":
        answer += f" {video.subjects[1].color_name}"
    others = [s for s in video.steps[0].shapes if (s.kind, s.color) != (thing.kind, thing.color)]
    wrong = [f"{name(other)} vanishes" for other in others]
    wrong += [f"{name(other)} turns {COLORS[rng.integers(len(COLORS))]}" for other in others]
    wrong.append(f"{COLORS[rng.integers(len(COLORS))]} {SHAPES[rng.integers(len(SHAPES))]} appears")
    wrong = [option for option in wrong if option != answer]
    text, paraphrased = _worded(rng, _CHANGE_WAYS)
    about = video.cells(list(video.subjects))
    return hinted(rng, Question(text, answer, about, paraphrased=paraphrased), wrong)


@VIDEOS.helper("starts")
def _starts(rng: np.random.Generator, video: Video) -> Question | None:
    """Where the thing that moves was at first."""
    if video.story != "moves":
        return None
    start, _ = video.subjects
    text = _START_WAYS[rng.integers(len(_START_WAYS))].format(name(start))
    return Question(text, start.where, video.cells([start]))


@VIDEOS.helper("mover")
def _mover(rng: np.random.Generator, video: Video) -> Question | None:
    """Which thing moves."""
    if video.story != "moves":
        return None
    return Question("what moves ?", name(video.subjects[0]), video.cells([video.subjects[0]]))


@VIDEOS.helper("of_end")
def _of_end(rng: np.random.Generator, video: Video) -> Question | None:
    """A question about the first or the last step."""
    step, word = (0, "start") if rng.random() < 0.5 else (len(video.steps) - 1, "end")
    question = ask(str(pick(rng, ["shape_at", "color_at"])), rng, video.steps[step])
    if question is None:
        return None
    about = tuple(cell + step * video.canvas.cells for cell in question.about)
    text = question.text.removesuffix("?") + f"at the {word} ?"
    return Question(text, question.answer, about)


def hinted(
    rng: np.random.Generator, question: Question, wrong: list[str], hint: str | None = None
) -> Question:
    """The question after a hint: ``none``, ``right`` or ``wrong`` (drawn if ``hint`` is None)."""
    if hint is None:
        hint = str(rng.choice(HINTS[1:])) if rng.random() < _HINTED else "none"
    if hint == "none" or not wrong:
        return question
    answer = question.answer if hint == "right" else str(pick(rng, wrong))
    way = _HINT_WAYS[rng.integers(len(_HINT_WAYS))].format(answer=answer)
    return replace(question, text=f"{way} {question.text}", hint=hint)
