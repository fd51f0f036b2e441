"""Every pruning method by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightkv.contract.compressor import Reducer
from lightkv.errors import UnknownNameError
from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.divprune import DivPrune
from lightkv.pruning.fastv import FastV
from lightkv.pruning.hired import HiRED
from lightkv.pruning.sparsevlm import SparseVLM
from lightkv.pruning.visionzip import VisionZip
from lightkv.pruning.vispruner import VisPruner

METHODS: dict[str, Callable[..., Reducer]] = {
    "fastv": FastV,
    "hired": HiRED,
    "sparsevlm": SparseVLM,
    "divprune": DivPrune,
    "visionzip": VisionZip,
    "vispruner": VisPruner,
    "cdpruner": CDPruner,
}

KEEPING: dict[str, Callable[[float], Reducer]] = {
    "fastv": lambda share: FastV(removed=1 - share),
    "hired": lambda share: HiRED(kept=share),
    "divprune": lambda share: DivPrune(kept=share),
}
"""Pruners that can be asked to leave a share of the vision tokens, by that share."""


def method(name: str, **options: Any) -> Reducer:
    """Build a registered method; options are the fields of its class.

    Raises:
        UnknownNameError: If there is no method of that name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name](**options)


def methods() -> dict[str, str]:
    """Registered names with their descriptions."""
    return {name: (build.__doc__ or "").splitlines()[0] for name, build in METHODS.items()}
