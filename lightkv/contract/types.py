"""Types of values, checked where they enter: hyperparameters, arguments, settings.

One rule for all: what an annotation says holds, True and False are not numbers, a list will do
where a tuple is wanted, and numpy's scalars where numbers are.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

import numpy as np

from lightkv.errors import InvalidValueError

_WORDS: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    type(None): "None",
}
_LISTS: Final[Mapping[Any, str]] = {Sequence: "list or tuple"}


class Checked:
    """A dataclass whose fields hold what their annotations say.

    Raises:
        InvalidValueError: When one is made with a field of another type.
    """

    def __post_init__(self) -> None:
        for name, hint in field_types(cast(Hashable, type(self))).items():
            value = getattr(self, name)
            # Where a list is wanted, it stays the very one that was passed.
            if not (isinstance(value, list) and fits(value, hint)):
                value = plain(value)
                check_type(name, value, hint)
                object.__setattr__(self, name, value)


def check_type(name: str, value: object, hint: Any) -> None:
    """Refuse a value of another type than the annotation ``hint``.

    Args:
        name: The parameter as the user wrote it.
        value: What was passed.
        hint: A class, or a Literal, union, tuple, sequence or mapping of such.

    Raises:
        InvalidValueError: See above.
    """
    if not fits(value, hint):
        raise InvalidValueError(name, value, words(hint))


def plain(value: Any) -> Any:
    """A value without numpy's scalars, lists and ranges as tuples."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, range):
        return tuple(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return tuple(plain(one) for one in value)
    return value


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type that an annotation names."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple and inner[-1] is not ...:
        return (
            isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
        )
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, inner[0]) and fits(one, inner[1]) for key, one in value.items()
        )
    if origin is not None and issubclass(origin, Iterable):
        # A text is a sequence of texts to Python, never to a user.
        listed = isinstance(value, origin) and not isinstance(value, str | bytes)
        return listed and all(fits(one, inner[0]) for one in value)  # type: ignore[attr-defined]
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and type(value) is not bool
    return isinstance(value, hint)


def words(hint: Any) -> str:
    """An annotation as a user reads it: "a whole number or None", "one of 'avg', 'max'"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(words, inner))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is tuple and inner[-1] is not ...:
        return f"a tuple of {', '.join(map(words, inner))}"
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping, each of it {words(inner[0])} to {words(inner[1])}"
    if origin is not None:
        return f"a {_LISTS.get(origin, origin.__name__)}, each of it {words(inner[0])}"
    if hint in _WORDS:
        return _WORDS[hint]
    name = str(getattr(hint, "__name__", hint))
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


@cache
def field_types(kind: Hashable) -> Mapping[str, Any]:
    """Annotations of a dataclass's fields; none where a name in them can't be resolved."""
    try:
        known = typing.get_type_hints(kind)
    except NameError:
        return {}
    return {field.name: known[field.name] for field in fields(kind)}  # type: ignore[arg-type]
