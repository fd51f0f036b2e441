"""Artefacts of the papers: drawings, their numbers beside ours, and verdicts on their claims.

The names below are what the notebooks use; heavy modules load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.artefacts import artefact, artefacts
    from figures.export import publish

_WHERE = {
    "artefact": "figures.artefacts",
    "artefacts": "figures.artefacts",
    "publish": "figures.export",
}

__all__ = ["artefact", "artefacts", "publish"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'figures' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
