"""Tables whose rows are models, methods and settings, and whose columns are benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from analysis.scoring.benchmarks import PREFIX
from figures.artefacts.columns import Column
from figures.artefacts.methods import PRINTED, VANILLA
from figures.artefacts.shared import pick, short, summary
from figures.contract import Published, by_printed_score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Layout:
    """A table whose rows are models, methods and settings.

    Attributes:
        paper: Id of the printed numbers.
        columns: Benchmarks.
        setting: Column of our frame that holds the setting, such as "retention".
        named: From a setting to the paper's ``setting`` text.
        shown: From a setting to what is shown.
        percent: Whether scores are shown in percent, as the paper prints them.
    """

    paper: str
    columns: tuple[Column, ...]
    setting: str
    named: Callable[[Any], str]
    shown: Callable[[Any], str]
    percent: bool = False

    def asked(self, frame: pd.DataFrame) -> Layout:
        """The same with the published benchmarks in place of our tasks, where they were asked."""
        tasks = set(frame["task"])
        if not any(task.startswith(PREFIX) for task in tasks):
            return self
        columns = []
        for column in self.columns:
            published = column.published
            names = () if published is None else (published.full, published.lite)
            task = next((PREFIX + one for one in names if PREFIX + one in tasks), "")
            score = "" if published is None or not task else published.score
            columns.append(replace(column, task=task, score=score))
        return replace(self, columns=tuple(columns))

    @property
    def benchmarks(self) -> tuple[Published, ...]:
        """The scores of published benchmarks that can be shown."""
        return tuple(one.published for one in self.columns if one.published is not None)

    def by_score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a study, those of benchmarks once for each score that is shown."""
        return by_printed_score(frame, self.benchmarks)

    def plotted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Score with interval per task, or score of a benchmark, and method and setting."""
        return summary(self.by_score(frame), ("task", "compared", self.setting))

    def panels(self, data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Titles and cells of the panels of :meth:`plotted`: one a task, or score of a benchmark.

        Scores in points are made small, so that they come out right where others are in percent.
        """
        columns = {(column.task, column.score): column for column in self.columns}
        panels = []
        for (task, metric), cells in data.groupby(["task", "metric"], sort=False):
            column = columns.get((str(task), str(metric)))
            if column is not None:
                numbers = ["score", "low", "high"]
                cells = cells.assign(**{name: column.scale * cells[name] for name in numbers})
            panels.append((short(str(task)) if column is None else column.title, cells))
        return panels

    def unit(self, panel: str) -> str:
        """What the panel of some title shows."""
        points = any(column.points and column.title == panel for column in self.columns)
        return "points" if points else "score, %"

    def numbers(self) -> pd.DataFrame:
        """The printed numbers."""
        from figures import paper

        return paper.numbers(self.paper)

    def of(self, numbers: pd.DataFrame, method: str, setting: Any) -> pd.DataFrame:
        """Printed numbers of one method at one setting; the full cache has one row for all."""
        name = PRINTED.get(method, method)
        if method == VANILLA:
            cells = pick(numbers, method=VANILLA)
            return cells[cells["setting"] == cells["setting"].iloc[0]] if len(cells) else cells
        return pick(numbers, method=name, setting=self.named(setting))
