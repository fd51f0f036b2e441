"""What studies share: a registry, settings, and tables that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from analysis import provenance
from lightkv.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from analysis.tasks import Task
    from lightkv import VLM

DEFAULT_SAMPLES = 40
"""Questions per task. All studies together are then about ten thousand questions."""

_MODEL: Final = ("lightkv.loading", "lightkv.vlm")

Function = Callable[..., "pd.DataFrame"]
Tasks: TypeAlias = "Sequence[str | Task]"


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


def remembered(
    name: str,
    store: Store | None,
    configuration: Mapping[str, Any],
    compute: Callable[[], pd.DataFrame],
    parts: Iterable[object] = (),
) -> pd.DataFrame:
    """A table from the store, or computed and stored if it is not there.

    Args:
        name: Of the study, as it is registered.
        store: Where tables are kept, None for nowhere.
        configuration: What the table depends on besides the code and its libraries.
        compute: Makes the table.
        parts: Tasks, methods and the model's family, whose code the table depends on as well.
    """
    if store is None:
        return compute()
    modules = {study(name).run.__module__, *(_MODEL if study(name).needs_model else ())}
    whole = {
        **configuration,
        "revision": provenance.code_of(parts, modules),
        "versions": provenance.answering_versions(),
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
