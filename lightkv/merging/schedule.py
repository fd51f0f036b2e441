"""When a merging method acts: stage layers, ratios, and schedules for models of other depths."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from lightkv.compressor import ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.presets import MergeSchedule, preset

PAPER = preset("llava-1.5-13b").schedules[0]
PAPER_DEPTH = preset("llava-1.5-13b").shape.text.layers


def check_stages(layers: Sequence[int], facts: ModelFacts, *, first: int = 0) -> None:
    """Refuse stage layers that a model does not have.

    Args:
        layers: 0-based layers after which a stage acts; -1 is before the first layer.
        facts: The model. A stage after its last layer would change nothing.
        first: Smallest layer allowed.

    Raises:
        InvalidValueError: If there is none, they don't rise, or one is out of range.
    """
    last = facts.layers - 2
    allowed = f"at least one, strictly ascending, between {first} and {last}"
    rising = all(a < b for a, b in itertools.pairwise(layers))
    if not layers or not rising or layers[0] < first or layers[-1] > last:
        raise InvalidValueError("layers", tuple(layers), allowed)


def check_ratios(ratios: Sequence[float], stages: int, *, most: float = 0.5) -> None:
    """Refuse compression ratios that are not one per stage and within [0, most].

    Raises:
        InvalidValueError: See above; not-a-number is out of range too.
    """
    if len(ratios) != stages or not all(0 <= ratio <= most for ratio in ratios):
        raise InvalidValueError("ratios", tuple(ratios), f"{stages} numbers from 0 to {most}")


def check_windows(windows: Sequence[int], stages: int) -> None:
    """Refuse window counts that are not one per stage, at least 1 and never growing.

    Raises:
        InvalidValueError: See above.
    """
    falling = all(a >= b for a, b in itertools.pairwise(windows))
    if len(windows) != stages or not falling or min(windows) < 1:
        allowed = f"{stages} numbers of at least 1, none larger than the one before"
        raise InvalidValueError("windows", tuple(windows), allowed)


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
