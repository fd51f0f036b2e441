"""Parameterised notebooks: find them, read their parameters, check what a caller sets.

papermill only warns about an unknown parameter or a missing ``parameters`` tag; here both are
errors, raised before anything runs.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from lightkv.errors import InvalidValueError, LightKVError, UnknownNameError

FOLDER: Final = Path(__file__).resolve().parent.parent / "notebooks"
"""The notebooks: beside this package in a checkout, and where it was installed."""

TAG: Final = "parameters"

_INJECTED: Final = "# Parameters\n"
"""How the cell begins in which papermill sets parameters, after the one with the defaults."""


class NotebookError(LightKVError):
    """A notebook can't be used: missing, unreadable, or its parameters not well formed."""


@dataclass(frozen=True)
class Notebook:
    """A notebook on disk."""

    path: Path

    @classmethod
    def named(cls, name: str, folder: Path = FOLDER) -> Notebook:
        """The notebook ``name`` (without its suffix) of a folder.

        Raises:
            NotebookError: There is no such folder.
            UnknownNameError: There is no such notebook; the message lists the nearest names.
        """
        if not folder.is_dir():
            raise NotebookError(f"no notebooks at {folder}: install lightkv again")
        known = [path.stem for path in folder.glob("*.ipynb")]
        if name not in known:
            raise UnknownNameError("notebook", name, known)
        return cls(folder / f"{name}.ipynb")

    @property
    def name(self) -> str:
        """File name without suffix."""
        return self.path.stem

    @property
    def digest(self) -> str:
        """Digest of the file's content."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]

    @cached_property
    def modules(self) -> frozenset[str]:
        """Modules that its cells import."""
        cells = (cell.source for cell in self.content.cells if cell.cell_type == "code")
        return frozenset(name for source in cells for name in imported(source))

    @cached_property
    def content(self) -> Any:
        """The notebook as nbformat reads it.

        Raises:
            NotebookError: It can't be read, or is not a notebook.
        """
        import nbformat

        try:
            return nbformat.read(self.path, as_version=4)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, nbformat.ValidationError) as error:
            raise NotebookError(f"{self.path} can't be read as a notebook: {error}") from error

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their default values.

        Raises:
            NotebookError: Not exactly one cell is tagged ``parameters``, or it holds anything but
                assignments of literals.
        """
        tagged = [
            cell
            for cell in self.content.cells
            if cell.cell_type == "code" and TAG in cell.get("metadata", {}).get("tags", ())
        ]
        if len(tagged) != 1:
            raise NotebookError(
                f"{self.path} has {len(tagged)} cells tagged {TAG!r}; exactly one is needed"
            )
        return _assigned(tagged[0].source, str(self.path))

    def complete(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults with ``parameters`` in place.

        Raises:
            UnknownNameError: The notebook has no such parameter.
            InvalidValueError: A value is of another kind than the default.
        """
        defaults = self.defaults
        _check(parameters, defaults, f"notebook {self.name}")
        return {**defaults, **parameters}


def imported(source: str) -> list[str]:
    """Modules that a cell imports; lines that only IPython reads are left out."""
    python = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    try:
        nodes = list(ast.walk(ast.parse(python)))
    except SyntaxError:
        return []
    plain = [alias.name for one in nodes if isinstance(one, ast.Import) for alias in one.names]
    return plain + [one.module for one in nodes if isinstance(one, ast.ImportFrom) and one.module]


def refuse_unknown(cells: Sequence[str]) -> None:
    """Refuse parameters that a notebook doesn't have, where papermill only warns.

    Args:
        cells: What has been executed so far: ``In`` of the notebook.

    Raises:
        UnknownNameError: papermill has set a parameter that the notebook does not have.
        InvalidValueError: It has set one to a value of another kind than the default.
        NotebookError: The notebook's own parameters are not well formed.
    """
    for place, source in enumerate(cells):
        if source.startswith(_INJECTED):
            defaults = _assigned(cells[place - 1], "this notebook")
            _check(_assigned(source, "papermill's cell"), defaults, "this notebook")


def _assigned(source: str, where: str) -> dict[str, Any]:
    """Names and values of a cell of assignments."""
    try:
        return dict(_assignment(statement) for statement in ast.parse(source).body)
    except (SyntaxError, ValueError) as error:
        raise NotebookError(
            f"{where}: the cell tagged {TAG!r} may hold assignments of literals only ({error})"
        ) from error


def _check(parameters: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
    for name, value in parameters.items():
        if name not in defaults:
            raise UnknownNameError(f"parameter of {where}", name, defaults)
        if not _fits(value, defaults[name]):
            kind = type(defaults[name]).__name__
            raise InvalidValueError(name, value, f"a {kind} like {defaults[name]!r}")


def _assignment(statement: ast.stmt) -> tuple[str, Any]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Name):
            return target.id, ast.literal_eval(value)
    raise ValueError(f"line {statement.lineno} is not an assignment of a literal")


def _fits(value: Any, default: Any) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
