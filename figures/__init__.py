"""Artefacts of the papers: drawings, their numbers beside ours, and verdicts on their claims.

The names below are what the notebooks use; heavy modules load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.artefacts import artefact
    from figures.export import publish
    from figures.models import open_model

_WHERE = {
    "artefact": "figures.artefacts",
    "publish": "figures.export",
    "open_model": "figures.models",
}

__all__ = ["artefact", "open_model", "publish"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'figures' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
