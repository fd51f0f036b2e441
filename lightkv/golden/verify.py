"""Replay a folder of reference cases and count what passed.

Cases of a method are replayed by the module of this package that has its name: its function
``replay(case, arrays)`` returns one line per difference. If it has a function ``skip_reason(case)``
too, that says why a case is refused on purpose, or None.
"""

from __future__ import annotations

import json
import pkgutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lightkv.golden as room
from lightkv.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class Outcome:
    """What became of one case: differences, or the reason why it was skipped, or neither."""

    name: str
    failures: tuple[str, ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class Report:
    """Outcomes of all cases of a folder, in the order of its index."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> int:
        """Cases without any difference."""
        return len(self.outcomes) - self.failed - self.skipped

    @property
    def failed(self) -> int:
        """Cases with at least one difference."""
        return sum(bool(outcome.failures) for outcome in self.outcomes)

    @property
    def skipped(self) -> int:
        """Cases that are refused on purpose."""
        return sum(outcome.skipped is not None for outcome in self.outcomes)

    def lines(self) -> list[str]:
        """A line per difference and per skipped case, then the counts."""
        lines = []
        for outcome in self.outcomes:
            lines += [f"{outcome.name}: {failure}" for failure in outcome.failures]
            if outcome.skipped is not None:
                lines.append(f"{outcome.name}: skipped, {outcome.skipped}")
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return [*lines, counts]


def verify(directory: Path) -> Report:
    """Replay every case that ``index.json`` in a folder lists.

    What goes wrong inside one case, of whatever kind, is a failure of that case.

    Raises:
        InputError: If the folder, its index or the file of a case is missing or unreadable.
    """
    cases = _read_index(directory)
    return Report(tuple(_outcome(directory, case) for case in cases))


def _read_index(directory: Path) -> list[dict[str, Any]]:
    """The cases of a folder, each with at least a file and a method."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a folder")
    path = directory / "index.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; a folder of reference cases has an index")
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not an index of reference cases: {error!r}") from error
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise InputError(
            f"{path} is not an index of reference cases: 'cases' is not a list of entries"
        )
    for case in cases:
        if not isinstance(case.get("file"), str) or not (directory / case["file"]).is_file():
            raise InputError(f"{path} names the file {case.get('file')!r}, which is not there")
    return cases


def _outcome(directory: Path, case: Mapping[str, Any]) -> Outcome:
    """Replay one case."""
    name = str(case.get("name", case["file"]))
    arrays = _read_arrays(directory / case["file"])
    try:
        replay = replay_of(str(case["method"]))
        reason = replay.skip_reason(case) if hasattr(replay, "skip_reason") else None
        if reason is None:
            return Outcome(name, tuple(replay.replay(case, arrays)))
        if "quirk" not in case.get("tags", ()):
            return Outcome(name, (f"only quirks may be skipped, this is not one: {reason}",))
        return Outcome(name, skipped=reason)
    except Exception as error:
        # The run goes on: one broken case must not hide what the others say.
        return Outcome(name, (f"{type(error).__name__}: {error}",))


def replay_of(method: str) -> ModuleType:
    """The module that replays a method's cases.

    Raises:
        UnknownNameError: No module has the method's name.
    """
    names = {one.name for one in pkgutil.iter_modules(room.__path__)} - _OTHERS
    if method not in names:
        raise UnknownNameError("method of reference cases", method, names)
    return import_module(f"{room.__name__}.{method}")


_OTHERS = {"caches", "cli", "verify"}  # modules of this package that replay nothing


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a case."""
    try:
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read: {error}") from error
