"""Run notebooks, each configuration once.

A run unit is a notebook with its parameters. Its results lie in a folder named by a digest of the
notebook, the parameters, the model's files and the code. The completion marker is written last,
by renaming: a folder with a marker is complete and is not run again, one without is run again.
What the studies inside had finished is in the result store, so nothing is asked twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from analysis.provenance import everything, model_identity, revision
from analysis.studies import study
from figures.artefacts import artefact
from figures.export import write_json
from figures.notebook import Notebook
from lightkv.catalogue import user_files
from lightkv.errors import StoreError

MARKER: Final = "done.json"
EXECUTED: Final = "notebook.ipynb"
FAILED: Final = "failed.ipynb"
UNITS: Final = "notebooks"
ARTEFACTS: Final = "artefacts"
"""Parameter that says what a notebook makes."""

PLACES: Final = ("results", "out")
"""Parameters that say where things lie; they don't change results."""

START_SECONDS: Final = 300
"""How long a kernel may take to start on a busy machine."""

_NO_CELL = "the kernel ended or could not be started"


@dataclass(frozen=True)
class Finished:
    """A unit that is complete, or that failed.

    Attributes:
        folder: Where its files lie.
        seconds: How long it ran, when it ran.
        reused: Whether it was complete already.
        error: What went wrong, None if it is complete.
    """

    folder: Path
    seconds: float
    reused: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Unit:
    """One notebook with all its parameters.

    Attributes:
        notebook: The notebook.
        parameters: Every parameter but those of :data:`PLACES`.
        results: Folder of all results.
        name: What it is called to the user.
        artefacts: Ids of what it makes.
    """

    notebook: Notebook
    parameters: Mapping[str, Any]
    results: Path
    name: str
    artefacts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        notebook: Notebook,
        options: Mapping[str, Any],
        results: str | Path,
        *,
        name: str | None = None,
    ) -> Unit:
        """The unit of a notebook with some parameters set; its name is the notebook's by default.

        Raises:
            NotebookError, UnknownNameError, InvalidValueError: The notebook's parameters are not
                well formed, or one that is set is unknown or of the wrong kind.
        """
        complete = notebook.complete(options)
        parameters = {name: value for name, value in complete.items() if name not in PLACES}
        ids = tuple(str(complete.get(ARTEFACTS, "")).split())
        return cls(notebook, parameters, Path(results).absolute(), name or notebook.name, ids)

    @cached_property
    def key(self) -> str:
        """Digest of everything the results depend on."""
        depends = {
            "notebook": self.notebook.digest,
            "parameters": dict(self.parameters),
            "models": [model_identity(name) for name in _models(self.parameters, self.artefacts)],
            "code": revision(self.notebook.modules | _modules(self.artefacts)),
            "imports": {name: _digest(file) for name, file in user_files().items()},
        }
        text = json.dumps(depends, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where its files lie or will lie."""
        return self.results / UNITS / f"{self.name}-{self.key}"

    @property
    def complete(self) -> bool:
        """Whether it has run already."""
        return (self.folder / MARKER).is_file()

    def run(self) -> Finished:
        """Run the notebook unless it is complete; a failed one is kept as ``failed.ipynb``.

        Raises:
            StoreError: The folder can't be written.
        """
        done = marker(self.folder)
        if done is not None:
            return Finished(self.folder, float(done["seconds"]), reused=True)
        started = time.monotonic()
        _emptied(self.folder)
        try:
            self._execute()
        except RuntimeError as error:
            return Finished(self.folder, time.monotonic() - started, error=str(error))
        seconds = time.monotonic() - started
        write_json(
            self.folder / MARKER,
            {
                "name": self.name,
                "artefacts": list(self.artefacts),
                "parameters": dict(self.parameters),
                "seconds": round(seconds, 1),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "code": everything(),
            },
        )
        return Finished(self.folder, seconds)

    def _execute(self) -> None:
        """Execute into the folder; raise RuntimeError if a cell fails."""
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillException
        from traitlets.config import Config

        places = {"results": str(self.results), "out": str(self.folder)}
        known = self.notebook.defaults
        values = {**self.parameters, **{k: v for k, v in places.items() if k in known}}
        output = self.folder / EXECUTED
        os.environ["MPLBACKEND"] = "agg"
        try:
            with _transport() as transport:
                papermill.execute_notebook(
                    str(self.notebook.path),
                    str(output),
                    parameters=values,
                    kernel_name="python3",
                    progress_bar=False,
                    start_timeout=START_SECONDS,
                    cwd=str(self.results),
                    config=Config(KernelManager=transport),
                )
        except (PapermillException, DeadKernelError) as error:
            if getattr(error, "ename", None) == "KeyboardInterrupt":
                raise KeyboardInterrupt from error
            if output.exists():
                output.replace(self.folder / FAILED)
            raise RuntimeError(_summary(error)) from error


def marker(folder: Path) -> dict[str, Any] | None:
    """What the completion marker of a unit's folder says, None if the unit is not complete."""
    file = folder / MARKER
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def complete_units(results: str | Path) -> list[Path]:
    """Folders of all complete units, the latest last."""
    dated = []
    for folder in (Path(results) / UNITS).glob("*"):
        done = marker(folder)
        if done is not None:
            dated.append((str(done["finished"]), folder))
    return [folder for _, folder in sorted(dated)]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _modules(artefact_ids: Iterable[str]) -> frozenset[str]:
    """Modules that draw some artefacts, and those of their studies."""
    made = [artefact(one) for one in artefact_ids]
    drawn = {one.draw.__module__ for one in made}
    return frozenset(drawn | {study(one.study).run.__module__ for one in made})


def _models(parameters: Mapping[str, Any], artefact_ids: Iterable[str]) -> list[str]:
    """The model that is named, or those that the artefacts ask where none is."""
    wanted: str | None = parameters.get("model")
    if wanted is not None:
        return [wanted]
    return sorted({name for one in artefact_ids for name in artefact(one).models})


@contextmanager
def _transport() -> Iterator[dict[str, str]]:
    """How to talk to a kernel: over sockets of the file system, which no network can reach.

    Each kernel has a folder of its own, since two that start at once would pick the same names.
    Windows has no such sockets.
    """
    if os.name == "nt":
        yield {"transport": "tcp"}
        return
    with tempfile.TemporaryDirectory(prefix="lightkv-") as folder:
        yield {"transport": "ipc", "ip": str(Path(folder) / "kernel")}


def stop_kernels() -> None:
    """End the kernels that this process has started: they would outlive an interrupt."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()


def _emptied(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"results can't be written to {folder}: {error}") from error


def _summary(error: Exception) -> str:
    """The exception that a cell raised, in one line."""
    name, value = getattr(error, "ename", None), getattr(error, "evalue", None)
    if name is None:
        return f"{type(error).__name__}: {str(error).strip() or _NO_CELL}"
    return f"{name}: {value}"
