"""Columns of tables of methods by benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.artefacts.shared import pick, short
from figures.contract import Published

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A benchmark of a paper and the task that stands for it here.

    Attributes:
        benchmark, metric: As in the paper's numbers.
        title: As it is shown.
        task: Name of ours, "" for none.
        published: The benchmark itself, None where it can't be asked here.
        score: Score of several of the task that is shown, "" for its only one.
        points: Whether scores are points, which are not shown in percent.
    """

    benchmark: str
    metric: str
    title: str
    task: str = ""
    published: Published | None = None
    score: str = ""
    points: bool = False

    @property
    def heading(self) -> tuple[str, str]:
        """Two levels: the benchmark, and our task."""
        return self.title, f"here: {short(self.task)}" if self.task else "in print only"

    def of(self, data: pd.DataFrame) -> pd.DataFrame:
        """Its rows of a summary."""
        cells = pick(data, task=self.task)
        return pick(cells, metric=self.score) if self.score else cells
