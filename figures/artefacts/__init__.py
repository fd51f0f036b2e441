"""All artefacts by id: what the modules of this folder declare, and nothing else lists."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from figures.contract import Artefact
from lightkv.errors import InvalidValueError, UnknownNameError


def ids() -> tuple[str, ...]:
    """Ids of all artefacts: by paper, figures before tables."""
    return tuple(_declared())


def artefacts() -> tuple[Artefact, ...]:
    """All artefacts, in the order of their ids."""
    return tuple(_declared().values())


def artefact(artefact_id: str) -> Artefact:
    """The artefact of that id.

    Raises:
        UnknownNameError: No artefact has that id; the message lists the nearest ones.
    """
    declared = _declared()
    if artefact_id not in declared:
        raise UnknownNameError("artefact", artefact_id, declared)
    return declared[artefact_id]


@cache
def _declared() -> dict[str, Artefact]:
    """What the modules of this folder declare."""
    by_id: dict[str, Artefact] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, Artefact) and by_id.setdefault(value.id, value) is not value:
                raise InvalidValueError("id of two artefacts", value.id, "an id for each")
    return {one.id: one for one in sorted(by_id.values(), key=lambda one: one.place)}
