"""Make artefacts: run the notebooks they need, each configuration once, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from figures.artefacts import artefact, ids, made_by, notebook_of
from figures.notebook import FOLDER, Notebook
from figures.report import write_report
from figures.runner import Finished, Unit

USUAL_SECONDS: Final[dict[str, float]] = {
    "retention_sweep": 170,
    "pilot": 100,
    "ablation": 55,
    "layer_sweep": 60,
    "window_sweep": 40,
    "latency": 30,
    "kept_maps": 20,
    "merge_maps": 15,
    "cost": 15,
    "probing_attention": 40,
    "probing_information": 50,
    "probing_grounding": 25,
    "probing_redundancy": 20,
    "every_method": 20,
}
"""Rough run times of the quick settings on two cores; only for the time left."""


@dataclass(frozen=True)
class Step:
    """Where a reproduction stands: before a notebook (``finished`` None) or after it.

    ``left`` estimates the seconds of everything that is still to do.
    """

    number: int
    total: int
    notebook: str
    left: float
    finished: Finished | None = None


@dataclass(frozen=True)
class Reproduced:
    """What came of it: the report, and the notebooks that failed with what went wrong."""

    report: Path
    failures: dict[str, str]


def chosen(artefact_ids: Sequence[str]) -> tuple[str, ...]:
    """The given ids in the report's order, all if none are given.

    Raises:
        UnknownNameError: One is unknown.
    """
    for one in artefact_ids:
        artefact(one)
    return tuple(one for one in ids() if not artefact_ids or one in artefact_ids)


def plan(
    artefact_ids: Sequence[str],
    options: Mapping[str, Any],
    results: str | Path,
    notebooks: Path = FOLDER,
) -> list[Unit]:
    """Units that make the given artefacts. Options that a notebook does not have are left out.

    Raises:
        UnknownNameError, InvalidValueError, NotebookError: Before anything runs.
    """
    units = []
    for name in dict.fromkeys(notebook_of(one) for one in chosen(artefact_ids)):
        notebook = Notebook.named(name, notebooks)
        known = notebook.defaults
        given = {key: value for key, value in options.items() if key in known}
        units.append(Unit.of(notebook, given, results))
    return units


def reproduce(
    units: Sequence[Unit],
    report: str | Path,
    *,
    tell: Callable[[Step], None] = lambda step: None,
    command: str = "",
) -> Reproduced:
    """Run units one after the other, whatever fails, and write the report.

    Args:
        units: What to run, see :func:`plan`.
        report: Folder of the report.
        tell: Is told about every notebook, before and after.
        command: What the user typed, for the run record.
    """
    done: list[tuple[Unit, Finished]] = []
    for place, unit in enumerate(units):
        name = unit.notebook.name
        tell(Step(place + 1, len(units), name, _left(units[place:], done)))
        finished = unit.run()
        done.append((unit, finished))
        tell(Step(place + 1, len(units), name, _left(units[place + 1 :], done), finished))
    made = {one: finished for unit, finished in done for one in made_by(unit.notebook.name)}
    path = write_report(made, report, results=units[0].results if units else None, command=command)
    failures = {unit.notebook.name: found.error for unit, found in done if found.error is not None}
    return Reproduced(path, failures)


def _left(units: Iterable[Unit], done: Sequence[tuple[Unit, Finished]]) -> float:
    """Seconds that units will take, from usual times and how those that ran compared to them."""
    ran = [(USUAL_SECONDS.get(u.notebook.name, 60.0), f.seconds) for u, f in done if not f.reused]
    pace = sum(took for _, took in ran) / sum(usual for usual, _ in ran) if ran else 1.0
    waiting = [unit for unit in units if not unit.complete]
    return pace * sum(USUAL_SECONDS.get(unit.notebook.name, 60.0) for unit in waiting)
