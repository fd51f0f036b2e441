"""Every registered method has a reference, and enough cases are compared."""

from __future__ import annotations

from lightkv.catalogue import methods
from tests.references import test_evictors, test_reducers
from tests.references.evictors import EVICTORS, MERGES
from tests.references.test_evictors import DRAWN
from tests.references.test_reducers import REDUCERS

OF_THEIR_OWN = ("kvzip", "tome-cache")
"""Evictors with a test to themselves."""


def test_every_registered_method_has_a_reference() -> None:
    assert set(methods()) == {*EVICTORS, *DRAWN, *REDUCERS, *OF_THEIR_OWN}


def test_enough_cases_are_compared() -> None:
    """Each test fails when it compares fewer than its least, so this is the least of all."""
    tests = len(EVICTORS) + len(MERGES) + len(DRAWN) + len(OF_THEIR_OWN)
    cases = tests * test_evictors.LEAST + len(REDUCERS) * test_reducers.LEAST
    assert cases >= 10_000
