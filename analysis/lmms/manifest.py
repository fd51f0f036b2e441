"""The entry point of group ``lmms_eval.models``; a failing one would take all plugins away."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Where lmms-eval finds the model called ``lightkv``; nothing heavy is imported."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="lightkv", chat_class_path="analysis.lmms.chat.LightKVChat")
