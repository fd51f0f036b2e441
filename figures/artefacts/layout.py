"""Tables whose columns are benchmarks, and those whose rows are models, methods and settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from analysis.scoring.benchmarks import PREFIX
from figures.artefacts.columns import Column
from figures.artefacts.shared import short, summary
from figures.contract import Published, by_printed_score

if TYPE_CHECKING:
    import pandas as pd

SMALL: Final = 0.01
"""What points are multiplied by where all other scores are shares that are drawn in percent."""


def number_in(setting: str) -> float:
    """The number in a printed setting: 0.55 of "compression=55%", 128 of "kept=128"; 1 without."""
    match = re.search(r"=([\d.]+)(%?)$", setting)
    if match is None:
        return 1.0
    return float(match[1]) / 100 if match[2] else float(match[1])


@dataclass(frozen=True)
class PrintedTable:
    """A table of a paper whose columns are benchmarks.

    Attributes:
        paper: Id of the printed numbers.
        columns: Benchmarks.
    """

    paper: str
    columns: tuple[Column, ...]

    def asked(self, frame: pd.DataFrame) -> Self:
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

    def summary(self, frame: pd.DataFrame, *settings: str) -> pd.DataFrame:
        """Score with interval per task, or score of a benchmark, and setting."""
        return summary(self.by_score(frame), ("task", *settings))

    def apart(self, data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Titles and rows of a :meth:`summary`: tasks of ours, or benchmarks as in print."""
        titles = {(column.task, column.score): column.title for column in self.columns}
        parts = [
            (titles.get((str(task), str(metric)), short(str(task))), cells)
            for (task, metric), cells in data.groupby(["task", "metric"], sort=False)
        ]
        places = {title: place for place, title in enumerate(titles.values())}
        return sorted(parts, key=lambda part: places.get(part[0], len(places)))

    def panels(self, data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """As :meth:`apart`, for drawing.

        Scores in points are made small, so that they come out right where others are in percent.
        """
        numbers = ["score", "low", "high"]
        return [
            (title, cells.assign(**{name: SMALL * cells[name] for name in numbers}))
            if self.in_points(title)
            else (title, cells)
            for title, cells in self.apart(data)
        ]

    def shares(self, data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """As :meth:`apart` without scores in points, for drawings that have one axis for all."""
        return [part for part in self.apart(data) if not self.in_points(part[0])]

    def in_points(self, title: str) -> bool:
        """Whether what has this title is shown in points, not in percent."""
        return any(column.points and column.title == title for column in self.columns)

    def unit(self, panel: str) -> str:
        """What the panel of some title shows."""
        return "points" if self.in_points(panel) else "score, %"

    def numbers(self) -> pd.DataFrame:
        """The printed numbers."""
        from figures import paper

        return paper.numbers(self.paper)


@dataclass(frozen=True)
class Layout(PrintedTable):
    """A table whose rows are models, methods and settings.

    Attributes:
        setting: Column of our frame that holds the setting, such as "retention".
        shown: From a setting to what is shown.
        percent: Whether scores are shown in percent, as the paper prints them.
        read: From the paper's ``setting`` text to the setting.
    """

    setting: str
    shown: Callable[[Any], str]
    percent: bool = False
    read: Callable[[str], Any] = number_in

    def plotted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Score with interval per task, or score of a benchmark, and method and setting."""
        return self.summary(frame, "compared", self.setting)
