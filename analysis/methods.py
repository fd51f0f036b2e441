"""Methods written as text, as on the command line: ``tgvkv``, ``fastv:removed=0.75``, ``a|b``.

A method is a registered name, optionally with ``:field=value`` pairs separated by ``;``, values
written as Python literals. ``|`` composes: merge or prune in prefill, then evict. Merging methods
without a schedule get LightKV's, carried over to the model's depth. An evictor without a
``retention`` of its own is taken once for each of the retentions given.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from analysis.rows import VANILLA
from lightkv.compressor import Compressor, ModelFacts
from lightkv.errors import InvalidValueError, UnknownNameError

RETENTION = "retention"
_SCHEDULE = ("layers", "windows", "ratios")

Build = Callable[..., Compressor]


def compressors(
    specs: Sequence[str], retentions: Sequence[float], facts: ModelFacts
) -> dict[str, Compressor | None]:
    """Methods by label; "vanilla" is the full cache.

    Args:
        specs: Methods as text.
        retentions: Shares of the cache for evictors that name none.
        facts: The model, whose depth a merging schedule is carried over to.

    Raises:
        UnknownNameError: A name is in no registry.
        InvalidValueError: A field is unknown, badly written or out of range, or an evictor has no
            retention.
    """
    found: dict[str, Compressor | None] = {}
    for spec in specs:
        if spec == VANILLA:
            found[VANILLA] = None
            continue
        parts = [_Part.read(text, facts) for text in spec.split("|")]
        if not any(part.wants_retention for part in parts):
            found[spec] = _composed(parts, {})
            continue
        if not retentions:
            raise InvalidValueError(RETENTION, "none", f"at least one for {spec}")
        for retention in retentions:
            label = f"{spec} {100 * retention:g} %"
            found[label] = _composed(parts, {RETENTION: retention})
    return found


@dataclasses.dataclass(frozen=True)
class _Part:
    """One name with its options."""

    name: str
    build: Build
    options: dict[str, Any]
    wants_retention: bool

    @classmethod
    def read(cls, text: str, facts: ModelFacts) -> _Part:
        name, _, assignments = text.strip().partition(":")
        reducers, evictors = _registries()
        options = dict(_assignment(name, one) for one in assignments.split(";") if one.strip())
        if name in evictors:
            return cls(name, evictors[name], options, RETENTION not in options)
        if name not in reducers:
            raise UnknownNameError("method", name, [VANILLA, *reducers, *evictors])
        needed = [
            parameter.name
            for parameter in inspect.signature(reducers[name]).parameters.values()
            if parameter.default is parameter.empty
        ]
        if set(needed) <= set(_SCHEDULE) and needed and not set(needed) & set(options):
            options = _schedule(facts, needed) | options
        return cls(name, reducers[name], options, False)

    def make(self, more: dict[str, Any]) -> Compressor:
        options = self.options | (more if self.wants_retention else {})
        try:
            return self.build(**options)
        except TypeError as error:
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            allowed = f"fields of {self.name} ({error})"
            raise InvalidValueError(f"options of {self.name}", given, allowed) from error


def _composed(parts: Sequence[_Part], more: dict[str, Any]) -> Compressor:
    return functools.reduce(lambda a, b: a | b, (part.make(more) for part in parts))


def _registries() -> tuple[dict[str, Build], dict[str, Build]]:
    """Reducers and evictors by name."""
    from lightkv.eviction.methods import METHODS as EVICTORS
    from lightkv.merging.methods import METHODS as MERGING
    from lightkv.pruning.methods import METHODS as PRUNING

    return {**MERGING, **PRUNING}, dict(EVICTORS)


def _schedule(facts: ModelFacts, names: Sequence[str]) -> dict[str, Any]:
    from lightkv.merging.schedule import scaled

    schedule = scaled(facts.layers)
    return {name: getattr(schedule, name) for name in names}


def _assignment(method: str, text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise InvalidValueError(f"option of {method}", text, "field=value")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        # A bare word is a text: guidance=uniform.
        return name.strip(), value.strip()
