"""What studies share: a registry, a grid of methods asked the same questions, stored tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from analysis import provenance
from analysis.asking.evaluation import DEFAULT_BATCH_SIZE, evaluate
from analysis.asking.rows import VANILLA
from analysis.asking.store import Store
from analysis.tasks import Task
from lightkv.contract.compressor import Compressor
from lightkv.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

DEFAULT_SAMPLES = 40
"""Questions per task. All studies together are then about ten thousand questions."""

Function = Callable[..., "pd.DataFrame"]
Tasks = Sequence[str | Task]


class Settings(TypedDict, total=False):
    """How a study is run; every study that asks questions takes these.

    samples: Questions per task (40). seed: Which questions, and of random methods (0). store:
    Where rows are kept (memory). batch_size: Questions at once (16). progress: Show a bar (yes).
    """

    samples: int
    seed: int
    store: Store | None
    batch_size: int
    progress: bool


@dataclass(frozen=True)
class Study:
    """A function that returns a table, and what it is for.

    Attributes:
        name: Key in :data:`STUDIES`.
        artefacts: Ids of the figures and tables drawn from it.
        run: The function. It takes a model first unless ``needs_model`` is False.
        needs_model: False for what follows from dimensions alone.
    """

    name: str
    artefacts: tuple[str, ...]
    run: Function
    needs_model: bool


@dataclass(frozen=True)
class Cell:
    """One method of a grid and what is varied in it.

    Attributes:
        compressor: The method, None for the full cache.
        columns: Columns of the result that tell it from the others.
    """

    compressor: Compressor | None
    columns: Mapping[str, Any] = field(default_factory=dict)


STUDIES: dict[str, Study] = {}


def register(*artefacts: str, needs_model: bool = True) -> Callable[[Function], Function]:
    """Enter a function under its own name in :data:`STUDIES`."""

    def enter(function: Function) -> Function:
        STUDIES[function.__name__] = Study(function.__name__, artefacts, function, needs_model)
        return function

    return enter


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        UnknownNameError: No study is called so; the message lists the nearest names.
    """
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name]


def sweep(
    vlm: VLM,
    tasks: Tasks,
    cells: Mapping[str, Cell],
    vanilla: Mapping[str, Any],
    settings: Settings,
) -> pd.DataFrame:
    """The full cache and every cell on the same questions.

    Args:
        vlm: The model.
        tasks: What is asked.
        cells: Methods by label.
        vanilla: What the columns of the cells hold for the full cache.
        settings: How it is run.

    Returns:
        One row per label, task and question: the columns of
        :func:`~analysis.asking.evaluation.evaluate` and those of the cells.
    """
    grid = {VANILLA: Cell(None, vanilla), **cells}
    frame = evaluate(
        vlm,
        tasks,
        {label: cell.compressor for label, cell in grid.items()},
        samples=settings.get("samples", DEFAULT_SAMPLES),
        seed=settings.get("seed", 0),
        store=settings.get("store"),
        batch_size=settings.get("batch_size", DEFAULT_BATCH_SIZE),
        progress=settings.get("progress", True),
    )
    for name in dict.fromkeys(name for cell in grid.values() for name in cell.columns):
        values = {label: cell.columns.get(name) for label, cell in grid.items()}
        frame[name] = frame["method"].map(values)
    return frame


def remembered(
    name: str,
    store: Store | None,
    configuration: Mapping[str, Any],
    compute: Callable[[], pd.DataFrame],
) -> pd.DataFrame:
    """A table from the store, or computed and stored if it is not there.

    Args:
        name: Of the study.
        store: Where tables are kept, None for nowhere.
        configuration: What the table depends on besides the code and its libraries.
        compute: Makes the table.
    """
    if store is None:
        return compute()
    whole = {
        **configuration,
        "revision": provenance.study_revision(),
        "versions": provenance.versions(),
    }
    found = store.load_frame(name, whole)
    if found is None:
        found = compute()
        store.save_frame(name, whole, found)
    return found


def model_configuration(vlm: VLM) -> dict[str, Any]:
    """What a table computed with a model depends on."""
    return {
        "fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype),
        "attention": vlm.attention,
        "device": vlm.device.type,
    }
