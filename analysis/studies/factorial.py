"""X-8: every combination of LightKV's five choices, and of TGV-KV's three parts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Unpack

from analysis.studies.base import SAMPLES, Settings, Tasks, register
from analysis.studies.energy_pairs import EnergyPaired
from analysis.studies.eviction import PARTS, RESPONSIVE, with_parts
from analysis.studies.sweep import Cell, sweep
from lightkv import LightKV
from lightkv.cost.presets import MergeSchedule
from lightkv.cost.token_counts import token_layer_fraction
from lightkv.merging.schedule import PAPER, at_share, scaled

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

CHOICES: Final = ("guidance", "windows", "hierarchy", "pairing", "positions")
"""Of LightKV, see :func:`with_choices`."""

RETENTION: Final = 0.2


def one_stage(depth: int) -> MergeSchedule:
    """A single stage that processes as many token-layers as the paper's three at this depth.

    It halves the tokens where it acts, since no window gives away more, and so acts early.
    """
    three = scaled(depth)
    run = dataclasses.replace(three, layers=tuple(layer + 1 for layer in three.layers))
    first = dataclasses.replace(
        PAPER, layers=PAPER.layers[:1], windows=PAPER.windows[:1], ratios=PAPER.ratios[:1]
    )
    return at_share(depth, token_layer_fraction(depth, run), schedule=first)


def with_choices(choices: Sequence[bool], depth: int) -> LightKV:
    """LightKV with those of :data:`CHOICES` that are true; of the others what is compared with.

    Without guidance merged tokens are plain means, as ToMe's; without windows each stage has one;
    without hierarchy :func:`one_stage` takes the place of three; without its pairing windows are
    paired as PiToMe's (:class:`~analysis.studies.energy_pairs.EnergyPaired`); without its positions
    survivors are renumbered.
    """
    guidance, windows, hierarchy, pairing, positions = choices
    schedule = scaled(depth) if hierarchy else one_stage(depth)
    kind = LightKV if pairing else EnergyPaired
    return kind(
        schedule.layers,
        schedule.windows if windows else (1,) * len(schedule.layers),
        schedule.ratios,
        guidance="prompt" if guidance else "uniform",
        positions="keep" if positions else "reindex",
    )


@register
def all_combinations(
    vlm: VLM,
    *,
    tasks: Tasks = RESPONSIVE,
    retention: float = RETENTION,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Both methods with every combination of their parts: two full factorials.

    Args:
        vlm: The model.
        tasks: What is asked.
        retention: Of TGV-KV.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` ("lightkv", "tgvkv", "vanilla") and a column of each of
        :data:`CHOICES` and of the three parts: true, false, or None where it is another method's.
    """
    cells = {}
    for on in itertools.product((False, True), repeat=len(CHOICES)):
        columns = {"compared": "lightkv", **dict(zip(CHOICES, on, strict=True))}
        cells[_label("lightkv", CHOICES, on)] = Cell(with_choices(on, vlm.facts.layers), columns)
    for on in itertools.product((False, True), repeat=len(PARTS)):
        columns = {"compared": "tgvkv", **dict(zip(PARTS, on, strict=True))}
        cells[_label("tgvkv", PARTS, on)] = Cell(with_parts(on, retention), columns)
    return sweep(vlm, tasks, cells, {"compared": "vanilla"}, samples, settings)


def _label(method: str, names: Sequence[str], on: Sequence[bool]) -> str:
    """A method and what of it is in use."""
    used = [name for name, one in zip(names, on, strict=True) if one]
    return f"{method}: {' + '.join(used) or 'none'}"
