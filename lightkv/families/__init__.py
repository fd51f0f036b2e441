"""Model families: one small file each, one line of registration here."""

from __future__ import annotations

from lightkv.errors import UnknownNameError
from lightkv.families.base import Family
from lightkv.families.llava import Llava

FAMILIES: tuple[Family, ...] = (Llava(),)


def family_of(model_type: str) -> Family:
    """The family of a ``config.model_type``.

    Raises:
        UnknownNameError: If no family is registered for it.
    """
    by_type = {name: family for family in FAMILIES for name in family.model_types}
    if model_type not in by_type:
        raise UnknownNameError("model family", model_type, by_type)
    return by_type[model_type]


__all__ = ["FAMILIES", "Family", "family_of"]
