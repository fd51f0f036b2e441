"""Videos: what comes first, where something goes, what changes.

A video is a series of steps; each step is a picture that stands for two frames, that is for one
temporal patch of the model. Objects stay where they are unless the story moves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lightkv.embedded.canvas import Canvas, Index
from lightkv.embedded.question_kinds import Picture, Thing, picture_of
from lightkv.embedded.scenes import DIGIT_COUNT, EMPTY, Scenes, place
from lightkv.embedded.vocabulary import COLORS, SHAPES

Story = Literal["order", "moves", "changes"]
STORIES: Final[tuple[Story, ...]] = ("order", "moves", "changes")
_MOST_OBJECTS: Final = 5
_PAIRS: Final = len(SHAPES) * len(COLORS)


@dataclass(frozen=True)
class Video:
    """The steps of a video.

    Attributes:
        story: What it is about.
        steps: A picture for each step.
        subjects: The things that the story is about: all in order of appearance, the one that
            moves (where it starts, where it ends), or the one that changes (before, after; one
            of them where it appears or vanishes).
        change: What happens to the one that changes: ``turns``, ``appears``, ``vanishes``.
    """

    story: Story
    steps: tuple[Picture, ...]
    subjects: tuple[Thing, ...]
    change: str = ""

    @property
    def canvas(self) -> Canvas:
        return self.steps[0].canvas

    def cells(self, things: list[Thing]) -> tuple[int, ...]:
        """Every cell at which the things stand, numbered on through the steps."""
        wanted = {(thing.kind, thing.color) for thing in things}
        return tuple(
            number * self.canvas.cells + shape.cell
            for number, step in enumerate(self.steps)
            for shape in step.shapes
            if (shape.kind, shape.color) in wanted
        )


@dataclass(frozen=True)
class _Plan:
    """Kinds and colors ``(S, C)`` of the steps of a video, and its subjects as (step, cell)."""

    kind: Index
    color: Index
    subjects: tuple[tuple[int, int], ...]
    change: str = ""


def sample_videos(
    rng: np.random.Generator, count: int, canvas: Canvas, steps: int, most: int = _MOST_OBJECTS
) -> tuple[Scenes, list[Video]]:
    """Draw ``count`` videos of ``steps`` steps with at most ``most`` objects.

    Returns:
        The scenes of all steps, video after video ``(B * S)``, and the videos.
    """
    stories = [STORIES[i] for i in rng.integers(len(STORIES), size=count)]
    plans = [_PLANS[story](rng, canvas.cells, steps, most) for story in stories]
    kind = np.concatenate([plan.kind for plan in plans])
    color = np.concatenate([plan.color for plan in plans])
    one = place(rng, kind[::steps], color[::steps], _no_digits(kind[::steps]), canvas)
    scenes = Scenes(
        kind,
        color,
        _no_digits(kind),
        np.repeat(one.radius, steps, 0),
        np.repeat(one.center, steps, 0),
        np.repeat(one.corner, steps, 0),
        canvas,
    )
    videos = []
    for number, (story, plan) in enumerate(zip(stories, plans, strict=True)):
        pictures = tuple(picture_of(scenes, number * steps + step) for step in range(steps))
        subjects = tuple(_thing_at(pictures[step], cell) for step, cell in plan.subjects)
        videos.append(Video(story, pictures, subjects, plan.change))
    return scenes, videos


def _no_digits(kind: Index) -> Index:
    return np.zeros((*kind.shape, DIGIT_COUNT), np.int64)


def _thing_at(picture: Picture, cell: int) -> Thing:
    return next(thing for thing in picture.shapes if thing.cell == cell)


def _objects(
    rng: np.random.Generator, cells: int, least: int, most: int
) -> tuple[Index, Index, Index, list[int]]:
    """Cells, kinds and colors of some objects, no two alike, and the free cells."""
    count = int(rng.integers(least, max(least, most) + 1))
    order = rng.permutation(cells)
    pairs = rng.permutation(_PAIRS)[:count]
    kind, color = np.divmod(pairs, len(COLORS))
    return order[:count], kind, color, [int(cell) for cell in order[count:]]


def _blank(cells: int, steps: int) -> tuple[Index, Index]:
    return np.full((steps, cells), EMPTY, np.int64), np.zeros((steps, cells), np.int64)


def _plan_order(rng: np.random.Generator, cells: int, steps: int, most: int) -> _Plan:
    """Objects appear one after another, and stay."""
    at, kinds, colors, _ = _objects(rng, cells, 2, min(most, cells, steps))
    kind, color = _blank(cells, steps)
    starts = np.sort(rng.permutation(steps)[: len(at)])
    for cell, a_kind, a_color, start in zip(at, kinds, colors, starts, strict=True):
        kind[start:, cell], color[start:, cell] = a_kind, a_color
    subjects = tuple((int(s), int(cell)) for s, cell in zip(starts, at, strict=True))
    return _Plan(kind, color, subjects)


def _plan_moves(rng: np.random.Generator, cells: int, steps: int, most: int) -> _Plan:
    """One object moves, once or twice, and ends elsewhere."""
    at, kinds, colors, free = _objects(rng, cells, 1, min(most, cells - 1))
    kind, color = _blank(cells, steps)
    kind[:, at[1:]], color[:, at[1:]] = kinds[1:], colors[1:]
    stops = [int(at[0]), *free[: int(rng.integers(1, min(2, len(free), steps - 1) + 1))]]
    turns = [0, *np.sort(1 + rng.permutation(steps - 1)[: len(stops) - 1]), steps]
    for stop, begin, end in zip(stops, turns[:-1], turns[1:], strict=True):
        kind[begin:end, stop], color[begin:end, stop] = kinds[0], colors[0]
    return _Plan(kind, color, ((0, stops[0]), (steps - 1, stops[-1])))


def _plan_changes(rng: np.random.Generator, cells: int, steps: int, most: int) -> _Plan:
    """One object turns to another color, appears, or vanishes."""
    at, kinds, colors, _ = _objects(rng, cells, 2, min(most, cells))
    kind, color = _blank(cells, steps)
    kind[:, at], color[:, at] = kinds, colors
    cell, when = int(at[0]), int(rng.integers(1, steps))
    before, after = (when - 1, cell), (when, cell)
    change = ("turns", "appears", "vanishes")[rng.integers(3)]
    if change == "appears":
        kind[:when, cell] = EMPTY
        return _Plan(kind, color, (after,), change)
    if change == "vanishes":
        kind[when:, cell] = EMPTY
        return _Plan(kind, color, (before,), change)
    taken = {int(c) for k, c in zip(kinds, colors, strict=True) if k == kinds[0]}
    color[when:, cell] = rng.choice([c for c in range(len(COLORS)) if c not in taken])
    return _Plan(kind, color, (before, after), change)


_PLANS: Final = {"order": _plan_order, "moves": _plan_moves, "changes": _plan_changes}
