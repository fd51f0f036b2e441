"""KV-cache compression in vision-language models: see it, test it, reproduce it.

The names below are the public interface; heavy modules load on first use, so that
``import lightkv`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightkv.answers import Answer
    from lightkv.contract.interventions import Knockout
    from lightkv.contract.observer import Observer
    from lightkv.eviction.methods.tgvkv import TGVKV
    from lightkv.loading import load
    from lightkv.merging.lightkv import LightKV
    from lightkv.prompting import Request
    from lightkv.session import Session
    from lightkv.vlm import VLM, CompressedVLM

__version__ = "0.1.0"

_WHERE = {
    "load": "lightkv.loading",
    "VLM": "lightkv.vlm",
    "Answer": "lightkv.answers",
    "CompressedVLM": "lightkv.vlm",
    "Request": "lightkv.prompting",
    "LightKV": "lightkv.merging.lightkv",
    "TGVKV": "lightkv.eviction.methods.tgvkv",
    "Session": "lightkv.session",
    "Observer": "lightkv.contract.observer",
    "Knockout": "lightkv.contract.interventions",
}

__all__ = [
    "TGVKV",
    "VLM",
    "Answer",
    "CompressedVLM",
    "Knockout",
    "LightKV",
    "Observer",
    "Request",
    "Session",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'lightkv' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
