"""Make the rows that ship: what all artefacts ask of the embedded model, each question once.

Which cells there are follows from the artefacts: each names, in ``planned``, the questions, seed
and budgets that its study is to be called with. What two artefacts share is asked once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.asking.packed import pack, packaged, unpack
from analysis.asking.replay import NotShippedError, Replay, Shipped
from analysis.asking.store import FILE_NAME, Store
from figures.artefacts import artefact, artefacts
from figures.contract import Artefact
from figures.export import replacing
from figures.making import study_of
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
    """Artefacts for which rows are to ship, all or those of some ids.

    Raises:
        UnknownNameError: An id is unknown.
        InputError: No rows are planned for one of them.
    """
    for one in ids:
        if not artefact(one).planned:
            raise InputError(f"{one} plans for no rows that ship; lightkv results plan lists all")
    return [one for one in artefacts() if one.planned and (not ids or one.id in ids)]


def plan(vlm: VLM, store: Store, ids: Sequence[str] = ()) -> Iterator[Planned]:
    """What is to ship, artefact by artefact, and how much of it is still to be asked."""
    seen: dict[str, set[int]] = {}
    for one in shipping(ids):
        jobs = _jobs(one, vlm)
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


def build(
    vlm: VLM, folder: Path, ids: Sequence[str] = (), *, seconds: float | None = None
) -> Iterator[Artefact]:
    """Ask what is to ship and is not there yet; yields each artefact that is complete.

    Killed at any time, it goes on with the batch that it was at. Where the folder is empty it
    starts from the rows that ship.

    Args:
        vlm: The embedded model.
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
                _run(one, vlm, store)
            except TimeIsUpError:
                return
            yield one


def write(vlm: VLM, folder: Path, file: Path) -> int:
    """Pack what a store holds of all that is to ship, as a whole, and return the file's bytes.

    Rows of code that has changed since are left out: nothing would match them.

    Raises:
        StoreError: The store can't be read, or the file can't be written.
    """
    keys = {job.key for one in shipping() for job in _jobs(one, vlm)}
    content = pack(folder, keys)
    with replacing(file) as target:
        target.write(content)
    return len(content)


def _jobs(target: Artefact, vlm: VLM) -> tuple[Job, ...]:
    """What an artefact's study asks; nothing is."""
    with Store(None) as store, store.over(Replay(Shipped(Store(None)))):
        try:
            _run(target, vlm, store)
        except NotShippedError as error:
            return error.jobs
    return ()


def _run(target: Artefact, vlm: VLM, store: Store) -> None:
    study = study_of(target)
    if study is not None:
        study.run(vlm, **{**target.options, **target.planned}, store=store)
