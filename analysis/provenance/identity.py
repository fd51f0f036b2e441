"""What a method is, printed so that two that differ never print alike."""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

import numpy as np

from lightkv.errors import UnsupportedError

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_GENERATED: Final = "<string>"
"""File name of methods that ``dataclass`` writes."""


def described(value: object) -> str:
    """A value with every parameter of it, as ``repr`` prints frozen dataclasses.

    Args:
        value: A number, a text, a container of such, or a frozen dataclass of them.

    Raises:
        UnsupportedError: Something in it can't be distinguished from another of its class: an
            object without readable parameters, or a class that hides some from its fields, its
            ``repr`` or its equality.
    """
    if type(value) in _PLAIN or isinstance(value, Enum | PurePath):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if type(value) is tuple:
        inner = ", ".join(described(one) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if type(value) is list:
        return f"[{', '.join(described(one) for one in value)}]"
    if type(value) in (set, frozenset):
        return f"{type(value).__name__}({sorted(described(one) for one in value)})"  # type: ignore[attr-defined]
    if type(value) is dict:
        pairs = (f"{described(key)}: {described(one)}" for key, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    if is_dataclass(value) and not isinstance(value, type):
        _check_open(value)
        named = (f"{one.name}={described(getattr(value, one.name))}" for one in fields(value))
        return f"{type(value).__qualname__}({', '.join(named)})"
    raise UnsupportedError(
        f"a parameter of class {type(value).__name__} can't be told from another of its class, so "
        "results that depend on it can't be stored: use numbers, texts, tuples of them, or frozen "
        "dataclasses"
    )


def parts_of(value: object) -> list[object]:
    """A value and every dataclass and member of an enumeration inside it."""
    if isinstance(value, list | tuple | set | frozenset):
        return [part for one in value for part in parts_of(one)]
    if isinstance(value, dict):
        return [part for pair in value.items() for part in parts_of(pair)]
    if is_dataclass(value) and not isinstance(value, type):
        inner = (parts_of(getattr(value, one.name)) for one in fields(value))
        return [value, *(part for several in inner for part in several)]
    return [value] if isinstance(value, Enum) else []


def _check_open(value: Any) -> None:
    """Refuse a dataclass whose fields don't tell all of it."""
    kind = type(value)
    name = kind.__qualname__
    if not kind.__dataclass_params__.frozen:
        raise _hidden(name, "it is not frozen, so its parameters may change while it is used")
    quiet = [one.name for one in fields(value) if not (one.repr and one.compare)]
    if quiet:
        raise _hidden(name, f"its fields {quiet} are left out of its repr or its equality")
    known = {one.name for one in fields(value)} | _computed(kind)
    extra = sorted((set(getattr(value, "__dict__", {})) | _slots(kind)) - known)
    if extra:
        raise _hidden(name, f"its attributes {extra} are not fields")
    equal = inspect.unwrap(kind.__eq__)
    code = getattr(equal, "__code__", None)
    if code is not None and code.co_filename != _GENERATED:
        raise _hidden(name, "it has an equality of its own")


def _hidden(name: str, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"results of {name} can't be stored: {reason}, and two of them could be taken for one. "
        "Make it a frozen dataclass (@dataclass(frozen=True)) with every parameter as a field"
    )


def _computed(kind: type) -> set[str]:
    """Names under which a class keeps what it computes from its fields."""
    return {
        name
        for base in kind.__mro__
        for name, one in vars(base).items()
        if isinstance(one, functools.cached_property)
    }


def _slots(kind: type) -> set[str]:
    slots: set[str] = set()
    for base in kind.__mro__:
        declared = vars(base).get("__slots__", ())
        slots |= {declared} if isinstance(declared, str) else set(declared)
    return slots - {"__dict__", "__weakref__"}
