"""The embedded model: a small LLaVA trained from scratch, its pictures and its questions."""

from __future__ import annotations

from lightkv.embedded.location import CHECKPOINT
from lightkv.embedded.question_kinds import QUESTION_KINDS
from lightkv.embedded.questions import Conversation, Item, conversations, items

__all__ = ["CHECKPOINT", "QUESTION_KINDS", "Conversation", "Item", "conversations", "items"]
