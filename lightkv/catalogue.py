"""All methods under one roof, by name, and methods written as text.

A method is a registered name, optionally with ``:field=value`` pairs separated by ``;``, values
written as Python literals: ``tgvkv:retention=0.2``, ``fastv:removed=0.75``. ``|`` composes: merge
or prune in prefill, then evict. Merging methods without a schedule get LightKV's, carried over to
the model's depth.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightkv.contract.compressor import Compressor, ModelFacts
from lightkv.errors import InvalidValueError, UnknownNameError
from lightkv.eviction.methods import METHODS as EVICTORS
from lightkv.merging.methods import METHODS as MERGERS
from lightkv.merging.schedule import scaled
from lightkv.pruning.methods import METHODS as PRUNERS

Build = Callable[..., Compressor]

RETENTION = "retention"
_SCHEDULE = ("layers", "windows", "ratios")
_ROOMS: dict[str, Mapping[str, Build]] = {
    "merges in prefill": MERGERS,
    "prunes in prefill": PRUNERS,
    "evicts": EVICTORS,
}


def methods() -> dict[str, str]:
    """Registered names with what they do."""
    return {
        name: f"{does}: {(build.__doc__ or '').splitlines()[0]}"
        for does, room in _ROOMS.items()
        for name, build in room.items()
    }


def builders() -> dict[str, Build]:
    """Registered names with what builds them."""
    return {name: build for room in _ROOMS.values() for name, build in room.items()}


def compressor(text: str, facts: ModelFacts) -> Compressor:
    """The compressor that a text names.

    Args:
        text: One method, or several joined by ``|``.
        facts: The model, whose depth a merging schedule is carried over to.

    Raises:
        UnknownNameError: A name is in no registry.
        InvalidValueError: A field is unknown, badly written or out of range, or missing.
    """
    return composed(read(text, facts), {})


@dataclass(frozen=True)
class Part:
    """One method with its options, not built yet.

    Attributes:
        name: Registered name.
        build: What builds it.
        options: Fields that were given.
        wants_retention: True for an evictor that was given no retention.
    """

    name: str
    build: Build
    options: Mapping[str, Any]
    wants_retention: bool

    def make(self, more: Mapping[str, Any]) -> Compressor:
        """Build it; ``more`` options go to a part that wants a retention."""
        options = {**self.options, **(more if self.wants_retention else {})}
        try:
            return self.build(**options)
        except TypeError as error:
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            allowed = f"fields of {self.name} ({error})"
            raise InvalidValueError(f"options of {self.name}", given, allowed) from error


def read(text: str, facts: ModelFacts) -> list[Part]:
    """The parts of a method written as text; raises as :func:`compressor` does."""
    return [_part(one, facts) for one in text.split("|")]


def composed(parts: Sequence[Part], more: Mapping[str, Any]) -> Compressor:
    """Build the parts and join them."""
    return functools.reduce(lambda a, b: a | b, (part.make(more) for part in parts))


def _part(text: str, facts: ModelFacts) -> Part:
    name, _, assignments = text.strip().partition(":")
    known = builders()
    if name not in known:
        raise UnknownNameError("method", name, known)
    options = dict(_assignment(name, one) for one in assignments.split(";") if one.strip())
    if name in EVICTORS:
        return Part(name, known[name], options, RETENTION not in options)
    parameters = inspect.signature(known[name]).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty]
    if needed and set(needed) <= set(_SCHEDULE) and not set(needed) & set(options):
        schedule = scaled(facts.layers)
        options = {field: getattr(schedule, field) for field in needed} | options
    return Part(name, known[name], options, False)


def _assignment(method: str, text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise InvalidValueError(f"option of {method}", text, "field=value")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        # A bare word is a text: guidance=uniform.
        return name.strip(), value.strip()
