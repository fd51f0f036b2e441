"""What a run is to ask, checked by name: no model is loaded, and no data are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from analysis.asking.method_grid import compressors
from analysis.asking.rows import ALL
from analysis.tasks import check_task
from lightkv.contract.view import ModelFacts
from lightkv.errors import LightKVError
from lightkv.loading import check_source
from lightkv.protocols import protocol

STAND_INS: Final = (ModelFacts(8, 8, 8, 64), ModelFacts(1024, 128, 64, 4096))
"""Stand for a model that is not loaded: what both refuse in the same words, every model refuses."""

Check = Callable[[], object]
"""Raises a LightKVError where something can't be used."""


def checks_of(
    models: Sequence[str],
    tasks: Sequence[str],
    methods: Sequence[str],
    retentions: Sequence[float],
    protocols: Sequence[str],
) -> list[Check]:
    """A check for each name of a run of :func:`~analysis.asking.evaluation.evaluate`.

    What depends on a model's dimensions or on a task's questions is not known yet.
    """
    return [
        *(partial(check_source, one) for one in models),
        *(partial(check_task, one) for one in tasks if one != ALL),
        *(partial(check_method, one, retentions) for one in methods),
        *(partial(protocol, one) for one in protocols),
    ]


def check_method(spec: str, retentions: Sequence[float]) -> None:
    """Refuse a method that no model could take.

    Args:
        spec: As text.
        retentions: Shares of the cache for evictors that name none.

    Raises:
        LightKVError: As :func:`~analysis.asking.method_grid.compressors`, or a value is out of
            range whatever the model is.
    """
    errors = [_refusal(spec, retentions, facts) for facts in STAND_INS]
    if errors[0] is not None and str(errors[0]) == str(errors[1]):
        raise errors[0]


def _refusal(spec: str, retentions: Sequence[float], facts: ModelFacts) -> LightKVError | None:
    try:
        for compressor in compressors([spec], retentions, facts).values():
            if compressor is not None:
                compressor.check(facts)
    except LightKVError as error:
        return error
    return None


def faults_of(checks: Iterable[Check]) -> list[str]:
    """What the checks refuse, in words, each once."""
    faults: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except LightKVError as error:
            faults[str(error)] = None
    return list(faults)
