"""Quantities that can be probed: one small class each, registered in one line.

The classes are frozen dataclasses; ``QUANTITIES`` maps names to their default instances' factories.
"""

from __future__ import annotations

from analysis.probing.quantities import attention, geometry, information, lens, records, states
from analysis.probing.quantities.base import (
    KINDS,
    QUANTITIES,
    Heads,
    LayerQuantity,
    Quantity,
    Reading,
    RecordQuantity,
    quantities,
    quantity,
    register,
)

__all__ = [
    "KINDS",
    "QUANTITIES",
    "Heads",
    "LayerQuantity",
    "Quantity",
    "Reading",
    "RecordQuantity",
    "attention",
    "geometry",
    "information",
    "lens",
    "quantities",
    "quantity",
    "records",
    "register",
    "states",
]
