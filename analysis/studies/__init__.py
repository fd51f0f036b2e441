"""Studies: functions that ask a model, or the cost model, and return one tidy table.

A study is a function under :func:`~analysis.studies.base.register` in a module of this folder;
nothing else lists it. Those that ask questions take ``samples``, ``seed`` and ``store``; those that
score answers take ``batch_size`` and ``progress`` as well. Studies that share a store share
answers: the full cache, and any method that two of them compare, is asked once.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from analysis.studies.base import STUDIES, Settings, Study, study
from analysis.studies.sweep import Cell, sweep

__all__ = ["STUDIES", "Cell", "Settings", "Study", "study", "sweep"]

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def __getattr__(name: str) -> Any:
    """The function of a study, by its name."""
    if name not in STUDIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return STUDIES[name].run
