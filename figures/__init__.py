"""Artefacts of the papers: drawings, their numbers beside ours, and verdicts on their claims.

``figures.make("T-T5", vlm)`` makes one; heavy modules load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from figures.neighbours import check_neighbours

if TYPE_CHECKING:
    from figures.artefacts import artefact, artefacts
    from figures.making import Made, make, make_all
    from figures.models import open_model
    from figures.notebook import refuse_unknown

_WHERE = {
    "Made": "figures.making",
    "artefact": "figures.artefacts",
    "artefacts": "figures.artefacts",
    "make": "figures.making",
    "make_all": "figures.making",
    "open_model": "figures.models",
    "refuse_unknown": "figures.notebook",
}

check_neighbours()

__all__ = ["Made", "artefact", "artefacts", "make", "make_all", "open_model", "refuse_unknown"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'figures' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
