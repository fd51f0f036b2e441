"""Make the rows that ship: what all artefacts ask of the embedded models, each question once.

Which cells there are follows from the artefacts: each names, in ``planned``, the questions, seed
and budgets that its study is to be called with. What two artefacts share is asked once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.asking.packed import pack, packaged, packed_rows, unpack
from analysis.asking.replay import NotShippedError, Replay, Shipped
from analysis.asking.store import FILE_NAME, Store
from analysis.outputs import replacing
from figures.artefacts import artefact, artefacts
from figures.contract import Artefact
from figures.making import asked_models, study_of
from lightkv.embedded.location import shipped
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    from analysis.asking.jobs import Job
    from lightkv import VLM


@dataclass(frozen=True)
class Planned:
    """What ships for an artefact.

    Attributes:
        artefact: The artefact.
        jobs: Its cells.
        rows: Questions of all of them.
        added: Questions that no artefact before it in the list asks.
        left: Of these, questions that the store doesn't hold yet.
    """

    artefact: Artefact
    jobs: tuple[Job, ...]
    rows: int
    added: int
    left: int


Models = Callable[[str], "VLM"]
"""From the name of an embedded model to the model."""


class TimeIsUpError(Exception):
    """As much was asked as there was time for."""


class _TimedStore(Store):
    """A store that ends the run with the first batch after its time."""

    def __init__(self, folder: Path, seconds: float | None) -> None:
        super().__init__(folder, decisions=True)
        self._until = None if seconds is None else time.monotonic() + seconds

    def add(self, *arguments: Any, **options: Any) -> None:
        super().add(*arguments, **options)
        if self._until is not None and time.monotonic() >= self._until:
            raise TimeIsUpError


def shipping(ids: Sequence[str] = ()) -> list[Artefact]:
    """Artefacts for which rows are to ship and whose models do, all or those of some ids.

    Raises:
        UnknownNameError: An id is unknown.
        InputError: No rows are planned for one of them.
        ModelError: The weights of its model don't ship yet.
    """
    for one in ids:
        if not artefact(one).planned:
            raise InputError(f"{one} plans for no rows that ship; lightkv results plan lists all")
        for name in artefact(one).absent:
            shipped(name)
    planned = [one for one in artefacts() if one.planned and not one.absent]
    return [one for one in planned if not ids or one.id in ids]


def plan(models: Models, store: Store, ids: Sequence[str] = ()) -> Iterator[Planned]:
    """What is to ship, artefact by artefact, and how much of it is still to be asked."""
    seen: dict[str, set[int]] = {}
    for one in shipping(ids):
        jobs = _jobs(one, models)
        rows = added = left = 0
        for job in {job.key: job for job in jobs}.values():
            items = {item.index for item in job.items}
            rows += len(items)
            new = items - seen.setdefault(job.key, set())
            seen[job.key] |= items
            added += len(new)
            if store.refusal(job.key) is None:
                left += len(new - store.finished(job.key))
        yield Planned(one, jobs, rows, added, left)


def existing(folder: Path) -> Store:
    """What a build goes on from: the store of a folder, else the rows that ship, else nothing.

    Raises:
        StoreError: It can't be read.
    """
    if (folder / FILE_NAME).is_file():
        return Store(folder, read_only=True)
    rows = packed_rows(packaged())
    return Store(None) if rows is None else rows.store


def build(
    models: Models, folder: Path, ids: Sequence[str] = (), *, seconds: float | None = None
) -> Iterator[Artefact]:
    """Ask what is to ship and is not there yet; yields each artefact that is complete.

    Killed at any time, it goes on with the batch that it was at. Where the folder is empty it
    starts from the rows that ship.

    Args:
        models: Opens embedded models by name, each once.
        folder: Of the store in which rows are kept until they are packed.
        ids: Of artefacts; all by default.
        seconds: Stop after about so long; None goes on to the end.

    Raises:
        InvalidValueError: There is no time.
        StoreError: Rows can't be written.
    """
    if seconds is not None and seconds <= 0:
        raise InvalidValueError("seconds", seconds, "above 0")
    wanted = shipping(ids)
    if not (folder / FILE_NAME).is_file():
        unpack(packaged(), folder)
    with _TimedStore(folder, seconds) as store:
        for one in wanted:
            try:
                for name in asked_models(one):
                    _run(one, models(name), store, one.planned)
            except TimeIsUpError:
                return
            yield one


def write(models: Models, folder: Path, file: Path) -> int:
    """Pack what a store holds of all that is to ship, as a whole, and return the file's bytes.

    Rows of code that has changed since are left out: nothing would match them.

    Raises:
        StoreError: The store can't be read, or the file can't be written.
    """
    keys = {job.key for one in shipping() for job in _jobs(one, models)}
    content = pack(folder, keys)
    with replacing(file) as target:
        target.write(content)
    return len(content)


def _jobs(target: Artefact, models: Models) -> tuple[Job, ...]:
    """What an artefact's study asks of its models for rows that ship; nothing is."""
    names = asked_models(target)
    return tuple(job for name in names for job in jobs_of(target, models(name), target.planned))


def jobs_of(target: Artefact, vlm: VLM, settings: Mapping[str, Any]) -> tuple[Job, ...]:
    """What an artefact's study asks; nothing is.

    Args:
        target: The artefact.
        vlm: The model.
        settings: What its study is called with besides its options.
    """
    with Store(None) as store, store.over(Replay(Shipped(Store(None)))):
        try:
            _run(target, vlm, store, settings)
        except NotShippedError as error:
            return error.jobs
    return ()


def _run(target: Artefact, vlm: VLM, store: Store, settings: Mapping[str, Any]) -> None:
    study_of(target).run(vlm, **{**target.options, **settings}, store=store)
