"""What studies share: a registry, settings, and tables that are computed once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from analysis import provenance
from lightkv.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from analysis.tasks import Task
    from lightkv import VLM

SAMPLES: Final = 24
"""Questions per task of a study that scores answers, where nothing else is said."""

MODEL: Final = "vlm"
"""First parameter of a study that needs a model."""

_MODEL: Final = ("lightkv.loading", "lightkv.vlm")

Function = Callable[..., "pd.DataFrame"]
Tasks: TypeAlias = "Sequence[str | Task]"


class Settings(TypedDict, total=False):
    """How questions are asked; every study that scores answers takes these.

    seed: Which questions, and of random methods (0). store: Where rows are kept (memory).
    batch_size: Questions at once (16). progress: Show a bar (yes).
    """

    seed: int
    store: Store | None
    batch_size: int
    progress: bool


@dataclass(frozen=True)
class Study:
    """A function that returns a table.

    Attributes:
        run: The function. It takes a model first, unless all follows from dimensions.
    """

    run: Function

    @property
    def name(self) -> str:
        """Key in :data:`STUDIES`: the function's name."""
        return self.run.__name__

    @property
    def room(self) -> str:
        """Module that it stands in; studies of one module share answers."""
        return self.run.__module__.rpartition(".")[2]

    @property
    def needs_model(self) -> bool:
        """False for what follows from dimensions alone."""
        return next(iter(self._signature), "") == MODEL

    @property
    def parameters(self) -> dict[str, Any]:
        """What it takes besides a model, with the defaults; of shared settings None."""
        defaults: dict[str, Any] = {}
        for name, one in self._signature.items():
            if one.kind is one.VAR_KEYWORD:
                defaults |= {**dict.fromkeys(Settings.__annotations__), "seed": 0}
            elif name != MODEL:
                defaults[name] = one.default
        return defaults

    @property
    def samples(self) -> int | None:
        """Questions per task if nothing else is said, None if it takes no number of them."""
        number: int | None = self.parameters.get("samples")
        return number

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.run).parameters


STUDIES: dict[str, Study] = {}
"""Every study by name."""


def register(function: Function) -> Function:
    """Enter a function under its own name in :data:`STUDIES`."""
    one = Study(function)
    STUDIES[one.name] = one
    return function


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        UnknownNameError: No study has that name; the message lists the nearest ones.
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
    frame = store.load_frame(name, whole)
    if frame is None:
        frame = compute()
        store.save_frame(name, whole, frame)
    return frame


def model_configuration(vlm: VLM) -> dict[str, Any]:
    """What a table computed with a model depends on."""
    return {
        "fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype),
        "attention": vlm.attention,
        "device": vlm.device.type,
    }
