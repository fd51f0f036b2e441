"""Methods by name: one decorator, beside the method, in every room and outside the package.

A method is whatever builds a compressor: its frozen dataclass, or a function that composes one.
Its options are read from it, so nothing is said twice: the parameters of the builder, and the
plain fields (numbers, words, tuples of them, decode policies) of the compressor that it returns.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lightkv.contract.compressor import Compressor, Evictor
from lightkv.contract.decoding import DecodePolicy
from lightkv.contract.parts import part_from_text
from lightkv.contract.types import check_type, plain
from lightkv.errors import InvalidValueError, UnknownNameError

Build = Callable[..., Compressor]
Builder = TypeVar("Builder", bound=Build)

RETENTION = "retention"
ENTRIES = "entries"

_METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: Its name.
        build: What builds it.
        by_share: Builds it from the share of the vision tokens to keep, for the methods of the
            prefill that have such a form; None for the others.
        fixed: Fields of the compressor that the builder decides and no option may change.
    """

    name: str
    build: Build
    by_share: Callable[[float], Compressor] | None = None
    fixed: Collection[str] = ()

    @property
    def description(self) -> str:
        """First line of the builder's docstring."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]

    @property
    def produces(self) -> type[Compressor]:
        """Class of the compressor that the builder returns."""
        whole = inspect.isclass(self.build)
        kind: type[Compressor] = self.build if whole else get_type_hints(self.build)["return"]  # type: ignore[assignment]
        return kind

    @property
    def stage(self) -> str:
        """When it acts, in words."""
        return "after prefill" if issubclass(self.produces, Evictor) else "in prefill"

    @property
    def takes_retention(self) -> bool:
        """True if it is asked for by the share of the cache that stays."""
        return RETENTION in self.options

    @property
    def required(self) -> list[str]:
        """Options without a default."""
        parameters = inspect.signature(self.build).parameters.values()
        return [one.name for one in parameters if one.default is one.empty]

    @property
    def options(self) -> dict[str, Any]:
        """Names of all options with their types."""
        hints = get_type_hints(self.build)
        named = {name: hints[name] for name in inspect.signature(self.build).parameters}
        return named | {n: t for n, t in self._fields().items() if n not in named}

    def _fields(self) -> dict[str, Any]:
        """Plain fields of what the builder returns, unless it decides them itself."""
        if inspect.isclass(self.build) or not is_dataclass(self.produces):
            return {}
        hints = get_type_hints(self.produces)
        names = [one.name for one in fields(self.produces) if one.init]
        return {n: hints[n] for n in names if n not in self.fixed and _plain(hints[n])}

    def make(self, **options: Any) -> Compressor:
        """Build the method.

        Raises:
            InvalidValueError: An option is not known, is missing or has a value of a wrong type.
        """
        if ENTRIES in options and ENTRIES in self.options and RETENTION in self.options:
            share = options.setdefault(RETENTION, 1.0)
            if options[ENTRIES] is not None and share != 1:
                raise InvalidValueError(
                    RETENTION, share, f"1 (the default) where {ENTRIES} is given"
                )
        values = {name: self._value(name, value) for name, value in options.items()}
        missing = [name for name in self.required if name not in values]
        if missing:
            raise InvalidValueError(f"{missing[0]} of {self.name}", "missing", "a value")
        parameters = inspect.signature(self.build).parameters
        built = self.build(**{n: v for n, v in values.items() if n in parameters})
        rest = {n: v for n, v in values.items() if n not in parameters}
        return replace(built, **rest) if rest else built

    def _value(self, name: str, value: Any) -> Any:
        known = self.options
        if name not in known:
            allowed = f"options of {self.name}: {', '.join(known) or 'none'}"
            raise InvalidValueError("option", name, allowed)
        return checked(f"{name} of {self.name}", value, known[name])


def register(
    name: str,
    *,
    by_share: Callable[[float], Compressor] | None = None,
    fixed: Collection[str] = (),
) -> Callable[[Builder], Builder]:
    """Enter the decorated class or function under a name; see :class:`Method`.

    Raises:
        InvalidValueError: Another method has the name.
    """

    def enter(build: Builder) -> Builder:
        before = _METHODS.get(name)
        if before is not None and _address(before.build) != _address(build):
            taken = f"a name that is not taken; {_address(before.build)} has it"
            raise InvalidValueError("name of a method", name, taken)
        _METHODS[name] = Method(name, build, by_share, tuple(fixed))
        return build

    return enter


def load_folder(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that what they register is known.

    Args:
        package: Its name.
        path: Its ``__path__``.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def registered() -> dict[str, Method]:
    """Methods of every module that was imported so far, by name, in alphabetical order."""
    return dict(sorted(_METHODS.items()))


def method(name: str, retention: float | None = None, **options: Any) -> Compressor:
    """Build a method whose module was imported.

    Args:
        name: Its name.
        retention: Share of the cache that stays, for methods that are asked for by it.
        options: Its other options.

    Raises:
        UnknownNameError: No method has the name.
        InvalidValueError: An option is not known, is missing or has a value of a wrong type.
    """
    if name not in _METHODS:
        raise UnknownNameError("method", name, _METHODS)
    named = {} if retention is None else {RETENTION: retention}
    return _METHODS[name].make(**named, **options)


def checked(name: str, value: Any, kind: Any) -> Any:
    """A value of a type, or an error that says what is allowed.

    See :mod:`lightkv.contract.types` for what fits. A decode policy may be written as
    text, see :func:`~lightkv.contract.parts.part_from_text`.

    Raises:
        InvalidValueError: The value is not of the type.
    """
    if inspect.isclass(kind) and issubclass(kind, DecodePolicy):
        policy = part_from_text(name, value, kind, checked) if isinstance(value, str) else value
        if not isinstance(policy, kind):
            raise InvalidValueError(name, value, f"a {kind.__name__}")
        return policy
    value = plain(value)
    check_type(name, value, kind)
    return value


def _plain(kind: Any) -> bool:
    """True for types that text can give a value of."""
    if inspect.isclass(kind) and issubclass(kind, DecodePolicy):
        return True
    if get_origin(kind) is Literal or kind is Ellipsis:
        return True
    if get_origin(kind) in (tuple, Union, types.UnionType):
        return all(_plain(one) for one in get_args(kind))
    return kind in (bool, int, float, str, type(None))


def _address(build: Build) -> str:
    return f"{build.__module__}.{getattr(build, '__qualname__', build)}"
