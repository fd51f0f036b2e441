"""Methods written as text (see :mod:`lightkv.catalogue`), each at several retentions; or all."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.asking.rows import ALL, VANILLA
from lightkv.catalogue import composed, methods, read
from lightkv.contract.compressor import Compressor
from lightkv.contract.registry import RETENTION
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError


def compressors(
    specs: Sequence[str], retentions: Sequence[float], facts: ModelFacts
) -> dict[str, Compressor | None]:
    """Methods by label; "vanilla" is the full cache.

    Args:
        specs: Methods as text; "all" for every registered one and the full cache.
        retentions: Shares of the cache for evictors that name none.
        facts: The model, whose depth a merging schedule is carried over to.

    Raises:
        UnknownNameError: A name is in no registry.
        InvalidValueError: A field is unknown, badly written or out of range, or an evictor has no
            retention.
    """
    grid: dict[str, Compressor | None] = {}
    for spec in specs:
        if spec == ALL:
            grid |= _every(retentions, facts)
            continue
        if spec == VANILLA:
            grid[VANILLA] = None
            continue
        parts = read(spec, facts)
        if not any(part.wants_retention for part in parts):
            grid[spec] = composed(parts, {})
            continue
        if not retentions:
            raise InvalidValueError(RETENTION, "none", f"at least one for {spec}")
        for retention in retentions:
            grid[_label(spec, retention)] = composed(parts, {RETENTION: retention})
    return grid


def _every(retentions: Sequence[float], facts: ModelFacts) -> dict[str, Compressor | None]:
    """The full cache and every registered method.

    Evictors keep each share of the cache; pruners that take a share keep it of the vision tokens;
    all others run at their defaults.
    """
    grid: dict[str, Compressor | None] = {VANILLA: None}
    for name, method in methods().items():
        if method.by_share is not None:
            grid |= {_label(name, share): method.by_share(share) for share in retentions}
        else:
            grid |= compressors([name], retentions, facts)
    return grid


def _label(spec: str, retention: float) -> str:
    return f"{spec} {100 * retention:g} %"
