"""KV-cache compression in vision-language models: see it, test it, reproduce it.

The names below are the public interface; heavy modules load on first use, so that
``import lightkv`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightkv.eviction.methods.tgvkv import TGVKV
    from lightkv.loading import load
    from lightkv.merging.lightkv import LightKV
    from lightkv.prompting import Request
    from lightkv.vlm import VLM, Answer, CompressedVLM

__version__ = "0.1.0"

_WHERE = {
    "load": "lightkv.loading",
    "VLM": "lightkv.vlm",
    "Answer": "lightkv.vlm",
    "CompressedVLM": "lightkv.vlm",
    "Request": "lightkv.prompting",
    "LightKV": "lightkv.merging.lightkv",
    "TGVKV": "lightkv.eviction.methods.tgvkv",
}

__all__ = ["TGVKV", "VLM", "Answer", "CompressedVLM", "LightKV", "Request", "load"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'lightkv' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
