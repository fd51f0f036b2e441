"""Make artefacts: run the notebooks they need, each configuration once, and write the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from figures.artefacts import artefact, ids
from figures.contract import Artefact
from figures.making import ignored, refuse_idle, study_of
from figures.models import EMBEDDED
from figures.notebook import FOLDER, Notebook
from figures.report import write_report
from figures.runner import Finished, Unit, stop_kernels
from lightkv.embedded.location import SHIPPED, shipped
from lightkv.errors import InvalidValueError

NOTEBOOK: Final = "artefacts"
"""The notebook that makes every artefact."""

MOST_JOBS: Final = 4
"""More than this many are never started unless ``jobs`` says so."""

START_SECONDS: Final = 12.0
"""Of a notebook before its first study: a kernel, libraries, a model."""


@dataclass(frozen=True)
class Step:
    """Where a reproduction stands: when a unit begins (``finished`` None) or ends.

    ``left`` estimates the seconds of everything that is still to do.
    """

    number: int
    total: int
    unit: Unit
    left: float
    finished: Finished | None = None


@dataclass(frozen=True)
class Reproduced:
    """The result: the report, and the units that failed with what went wrong."""

    report: Path
    failures: dict[str, str]


def in_order(artefact_ids: Sequence[str]) -> tuple[str, ...]:
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
    """Units that make the given artefacts: one for all of one model whose studies stand in one
    module. Where no model is named, those whose own does not ship are left out (:func:`absent`).

    Raises:
        ModelError: All of them are left out.
        UnknownNameError, InvalidValueError, NotebookError: Before anything runs; also if an option
            has no effect on any of the artefacts.
    """
    left_out = absent(artefact_ids, options)
    known = [artefact(one) for one in in_order(artefact_ids) if one not in left_out]
    if not known:
        shipped(next(iter(left_out.values()))[0])
    refuse_idle(known, options)
    rooms: dict[str, list[Artefact]] = {}
    for one in known:
        rooms.setdefault(_room(one, options), []).append(one)
    notebook = Notebook.named(NOTEBOOK, notebooks)
    units = []
    for room, group in rooms.items():
        idle = [set(ignored(one, options)) for one in group]
        useful = {k: v for k, v in options.items() if not all(k in names for names in idle)}
        parameters = {**useful, "artefacts": " ".join(one.id for one in group)}
        units.append(Unit.of(notebook, parameters, results, name=room))
    return units


def absent(artefact_ids: Sequence[str], options: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Artefacts that can't be made because no model is named and weights of theirs don't ship yet,
    with the names of these models."""
    if options.get("model") is not None:
        return {}
    known = [artefact(one) for one in in_order(artefact_ids)]
    return {one.id: one.absent for one in known if one.absent}


def _room(one: Artefact, options: Mapping[str, Any]) -> str:
    """Name of the unit that makes an artefact; models of its own make it another."""
    room = study_of(one).room
    usual = options.get("model") is not None or one.models == (EMBEDDED,)
    return room if usual else "-".join((room, *one.models))


def without_effect(
    artefact_ids: Sequence[str], options: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Per option the artefacts that it changes nothing about, where there are any."""
    idle: dict[str, list[str]] = {}
    for one in in_order(artefact_ids):
        for name in ignored(artefact(one), options):
            idle.setdefault(name, []).append(one)
    return {name: tuple(ids) for name, ids in idle.items()}


def usual_jobs(options: Mapping[str, Any]) -> int:
    """Units at once if nothing else is said: one a core for embedded models, which are small."""
    if options.get("model", EMBEDDED) not in SHIPPED or options.get("device", "cpu") != "cpu":
        return 1
    return max(1, min(_cores(), MOST_JOBS))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reproduce(
    units: Sequence[Unit],
    report: str | Path,
    *,
    jobs: int = 1,
    tell: Callable[[Step], None] = lambda step: None,
    command: str = "",
) -> Reproduced:
    """Run units, whatever fails, and write the report.

    Args:
        units: What to run, see :func:`plan`.
        report: Folder of the report.
        jobs: Units at once.
        tell: Called for every unit, before and after it runs.
        command: What the user typed, for the run record.

    Raises:
        InvalidValueError: ``jobs`` is less than 1.
        StoreError: Results or the report can't be written.
    """
    if jobs < 1:
        raise InvalidValueError("jobs", jobs, "at least 1")
    done = _run_all(units, jobs, tell)
    made = {one: finished for unit, finished in done for one in unit.artefacts}
    path = write_report(made, report, results=units[0].results if units else None, command=command)
    failures = {unit.name: finished.error for unit, finished in done if finished.error is not None}
    return Reproduced(path, failures)


def _run_all(
    units: Sequence[Unit], jobs: int, tell: Callable[[Step], None]
) -> list[tuple[Unit, Finished]]:
    """Units that ran with their results, in the order of the units."""
    done: dict[int, Finished] = {}
    lock, stopped = Lock(), Event()

    def run(place: int) -> None:
        unit = units[place]
        with lock:
            tell(Step(place + 1, len(units), unit, _left(units, done, jobs)))
        finished = unit.run()
        with lock:
            done[place] = finished
            if stopped.is_set():
                return
            tell(Step(place + 1, len(units), unit, _left(units, done, jobs), finished))

    if jobs == 1:
        for place in range(len(units)):
            run(place)
    else:
        # A thread each for its arithmetic: small matrices gain nothing from more.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // jobs)))
        # Longest first, so that no long one is left for the end.
        order = sorted(range(len(units)), key=lambda place: -_usual(units[place]))
        with ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(run, place) for place in order]
            try:
                for future in as_completed(waiting):
                    future.result()
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                stop_kernels()
                raise
    return [(units[place], done[place]) for place in sorted(done)]


def _usual(unit: Unit) -> float:
    return START_SECONDS + sum(artefact(one).seconds for one in unit.artefacts)


def _left(units: Sequence[Unit], done: Mapping[int, Finished], jobs: int) -> float:
    """Seconds that units will take, from usual times and how those that ran compared to them."""
    ran = [(_usual(units[place]), f.seconds) for place, f in done.items() if not f.reused]
    pace = sum(took for _, took in ran) / sum(usual for usual, _ in ran) if ran else 1.0
    waiting = [u for place, u in enumerate(units) if place not in done and not u.complete]
    usual = [_usual(unit) for unit in waiting]
    return pace * max(sum(usual) / jobs, max(usual, default=0.0))
