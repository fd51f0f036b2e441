"""Names of evictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from lightkv.errors import InvalidValueError, UnknownNameError
from lightkv.eviction.evictor import Evicting

Factory = TypeVar("Factory", bound=Callable[..., Evicting])

METHODS: dict[str, Callable[..., Evicting]] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Enter a factory ``(retention, **options) -> Evicting`` under a name."""

    def enter(factory: Factory) -> Factory:
        METHODS[name] = factory
        return factory

    return enter


def method(
    name: str, retention: float = 1.0, *, entries: int | None = None, **options: object
) -> Evicting:
    """Build a registered method.

    Args:
        name: One of :func:`methods`.
        retention: Share of the entries in the cache that stay.
        entries: Number of entries per layer that stay, instead of a share.
        options: What the method's factory takes besides.

    Raises:
        UnknownNameError: If there is no method of that name.
        InvalidValueError: If both a share and a number of entries are given.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    built = METHODS[name](retention, **options)
    if entries is None:
        return built
    if retention != 1:
        raise InvalidValueError("retention", retention, "1 (the default) where entries is given")
    return replace(built, entries=entries)


def methods() -> dict[str, str]:
    """Registered names with their descriptions."""
    return {name: (factory.__doc__ or "").splitlines()[0] for name, factory in METHODS.items()}
