"""The embedded model: a small LLaVA trained from scratch, its pictures and its questions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lightkv.embedded.questions import (
    QUESTION_KINDS,
    Conversation,
    Item,
    conversations,
    items,
)

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
"""Folder of the shipped checkpoint."""

__all__ = ["CHECKPOINT", "QUESTION_KINDS", "Conversation", "Item", "conversations", "items"]
