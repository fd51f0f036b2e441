"""When a merging method acts: published schedules, and schedules for models of other depths."""

from __future__ import annotations

import dataclasses
import itertools
import math

from lightkv.cost.presets import MergeSchedule, preset
from lightkv.cost.token_counts import token_layer_fraction
from lightkv.errors import InvalidValueError

PAPER = preset("llava-1.5-13b").schedules[0]
PAPER_DEPTH = preset("llava-1.5-13b").shape.text.layers
FAR = 0.05
"""How far above a share that is asked for the nearest schedule may lie."""


def scaled(depth: int, *, schedule: MergeSchedule = PAPER, of: int = PAPER_DEPTH) -> MergeSchedule:
    """A schedule for a model of another depth, at the same shares of its layers.

    A stage that lets n of ``of`` layers run first lets n * depth / of run, rounded (halves up)
    and moved as little as needed for the stages to stay apart and before the last layer.

    Args:
        depth: Layers of the model.
        schedule: Schedule to carry over; default the paper's for LLaVA-1.5-13B.
        of: Layers of the model it was made for.

    Raises:
        InvalidValueError: If the model has too few layers for that many stages.
    """
    stages = len(schedule.layers)
    if depth < stages + 1:
        raise InvalidValueError("depth", depth, f"at least {stages + 1} for {stages} stages")
    layers: list[int] = []
    for number, layer in enumerate(schedule.layers):
        wanted = math.floor((layer + 1) * depth / of + 0.5) - 1
        lowest = layers[-1] + 1 if layers else 0
        highest = depth - 2 - (stages - 1 - number)
        layers.append(min(max(wanted, lowest), highest))
    return dataclasses.replace(schedule, layers=tuple(layers), name=f"{schedule.name}-{depth}")


def at_share(depth: int, share: float, *, schedule: MergeSchedule = PAPER) -> MergeSchedule:
    """A schedule whose stages lie so that a share of the vision token-layers is processed.

    Of all places for the stages of ``schedule`` (its windows and ratios stay) those that come
    nearest to the share, counting that a stage's own layer still sees every token; of equally near
    ones the most evenly spaced, then the earliest.

    Args:
        depth: Layers of the model.
        share: Of the token-layers, in (0, 1].
        schedule: Whose windows and ratios to take.

    Raises:
        InvalidValueError: If the share is out of range, below what stages after the first layers
            reach by 5 points, or the model has too few layers.
    """
    if not 0 < share <= 1:
        raise InvalidValueError("share", share, "above 0, at most 1")
    stages = len(schedule.layers)
    if depth < stages + 1:
        raise InvalidValueError("depth", depth, f"at least {stages + 1} for {stages} stages")

    def processed(layers: tuple[int, ...]) -> float:
        run = tuple(layer + 1 for layer in layers)
        return token_layer_fraction(depth, dataclasses.replace(schedule, layers=run))

    def unevenness(layers: tuple[int, ...]) -> int:
        return sum((b - a) ** 2 for a, b in itertools.pairwise((*layers, depth - 1)))

    places = itertools.combinations(range(depth - 1), stages)
    best = min(places, key=lambda at: (round(abs(processed(at) - share), 9), unevenness(at), at))
    if processed(best) > share + FAR:
        least = processed(tuple(range(stages)))
        raise InvalidValueError("share", share, f"at least {least:.3f} with {depth} layers")
    return dataclasses.replace(schedule, layers=best, name=f"{100 * share:g} %")


def schedule_for(model: str, name: str | None = None) -> MergeSchedule:
    """A published schedule of a preset model, by default its first.

    Raises:
        UnknownNameError: If the preset or the schedule is not known.
        InvalidValueError: If no schedule was published for the model.
    """
    known = preset(model)
    if name is not None:
        return known.schedule(name)
    if not known.schedules:
        raise InvalidValueError("model", model, "a preset with a published schedule")
    return known.schedules[0]
