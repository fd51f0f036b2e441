"""Where results come from: the code that can change them, versions, hardware, the model's files.

Used by the keys of stored results, so that no result outlives what made it, and by the record that
lies beside every figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from analysis.provenance.identity import described, parts_of
from analysis.provenance.loaded import definition, loaded_code
from analysis.provenance.machine import (
    answering_versions,
    hardware,
    model_identity,
    model_is_here,
    scoring_versions,
    versions,
)
from analysis.provenance.sources import everything, revision

__all__ = [
    "answering_versions",
    "code_of",
    "described",
    "everything",
    "hardware",
    "model_identity",
    "model_is_here",
    "provenance",
    "revision",
    "scoring_versions",
    "versions",
]


def provenance() -> dict[str, Any]:
    """Versions, hardware, code revision and the time, for the record beside a figure."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "code": everything(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def code_of(parts: Iterable[object], modules: Iterable[str], apart: tuple[str, ...] = ()) -> str:
    """Digest of the code that some objects and modules are made of.

    Args:
        parts: Instances, classes or functions: methods with all their parts, tasks, metrics.
        modules: Names of modules of this project.
        apart: Names of packages of this project that don't count, though they are imported.

    Returns:
        16 hexadecimal digits for the code of this project, and after a "+" 16 more for code from
        outside of it, if there is any.

    Raises:
        UnsupportedError: Code from outside refers to a value of which a change can't be noticed.
    """
    whole = [part for outer in parts for part in (outer, *parts_of(outer))]
    kinds = [definition(part) for part in whole]
    bases = [base for kind in kinds for base in getattr(kind, "__mro__", ())]
    named = (str(one.__module__) for one in (*kinds, *bases))
    inside, outside = revision(frozenset((*named, *modules)), apart), loaded_code(kinds)
    return f"{inside}+{outside}" if outside else inside
