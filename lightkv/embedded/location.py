"""Where the shipped checkpoint lies; apart, because loading a model needs nothing else of here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
"""Folder of the shipped checkpoint."""
