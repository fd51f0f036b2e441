"""When a merging method acts: published schedules, and schedules for models of other depths."""

from __future__ import annotations

import dataclasses
import math

from lightkv.cost.presets import MergeSchedule, preset
from lightkv.errors import InvalidValueError

PAPER = preset("llava-1.5-13b").schedules[0]
PAPER_DEPTH = preset("llava-1.5-13b").shape.text.layers


def scaled(depth: int, *, schedule: MergeSchedule = PAPER, of: int = PAPER_DEPTH) -> MergeSchedule:
    """A schedule for a model of another depth, at the same shares of its layers.

    A stage that lets n of ``of`` layers run first lets n * depth / of run, rounded (halves up)
    and moved as little as needed for the stages to stay apart and before the last layer.

    Args:
        depth: Layers of the model.
        schedule: Schedule to carry over; default the paper's for LLaVA-1.5-13B.
        of: Layers of the model it was made for.

    Raises:
        InvalidValueError: If the model has too few layers for so many stages.
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


def schedule_for(model: str, name: str | None = None) -> MergeSchedule:
    """A published schedule of a preset model, by default its first.

    Raises:
        UnknownNameError: If the preset or the schedule is not known.
        InvalidValueError: If no schedule was published for the model.
    """
    found = preset(model)
    if name is not None:
        return found.schedule(name)
    if not found.schedules:
        raise InvalidValueError("model", model, "a preset with a published schedule")
    return found.schedules[0]
