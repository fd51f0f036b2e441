"""A grid of methods that are asked the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.asking.evaluation import DEFAULT_BATCH_SIZE, evaluate
from analysis.asking.rows import VANILLA
from analysis.studies.base import Settings, Tasks
from lightkv.contract.compressor import Compressor

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.refusals import OnRefusal
    from lightkv import VLM


@dataclass(frozen=True)
class Cell:
    """One method of a grid and what is varied in it.

    Attributes:
        compressor: The method, None for the full cache.
        columns: Columns of the result that tell it from the others.
    """

    compressor: Compressor | None
    columns: Mapping[str, Any] = field(default_factory=dict)


def sweep(
    vlm: VLM,
    tasks: Tasks,
    cells: Mapping[str, Cell],
    vanilla: Mapping[str, Any],
    samples: int,
    settings: Settings,
    *,
    on_refusal: OnRefusal | None = None,
) -> pd.DataFrame:
    """The full cache and every cell on the same questions.

    Args:
        vlm: The model.
        tasks: What is asked.
        cells: Methods by label.
        vanilla: What the columns of the cells hold for the full cache.
        samples: Questions per task; 0 for all of tasks that have an end.
        settings: How it is run.
        on_refusal: Told of cells that the model refuses, which are left out; None raises.

    Returns:
        One row per label, task and question: the columns of
        :func:`~analysis.asking.evaluation.evaluate` and those of the cells.
    """
    grid = {VANILLA: Cell(None, vanilla), **cells}
    frame = evaluate(
        vlm,
        tasks,
        {label: cell.compressor for label, cell in grid.items()},
        samples=samples or None,
        seed=settings.get("seed", 0),
        store=settings.get("store"),
        batch_size=settings.get("batch_size", DEFAULT_BATCH_SIZE),
        progress=settings.get("progress", True),
        on_refusal=on_refusal,
    )
    for name in dict.fromkeys(name for cell in grid.values() for name in cell.columns):
        values = {label: cell.columns.get(name) for label, cell in grid.items()}
        frame[name] = frame["method"].map(values)
    return frame
