"""Methods written as text (see :mod:`lightkv.methods`), each at several retentions."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.rows import VANILLA
from lightkv.compressor import Compressor, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.methods import RETENTION, composed, read


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
        parts = read(spec, facts)
        if not any(part.wants_retention for part in parts):
            found[spec] = composed(parts, {})
            continue
        if not retentions:
            raise InvalidValueError(RETENTION, "none", f"at least one for {spec}")
        for retention in retentions:
            label = f"{spec} {100 * retention:g} %"
            found[label] = composed(parts, {RETENTION: retention})
    return found
