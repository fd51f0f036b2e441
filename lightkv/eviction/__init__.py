"""Evictors: what leaves the KV cache after prefill and while decoding.

Each is a budget over layers x a ranking of entries x a retention rule (x a decode policy, x a
merge), see :class:`~lightkv.eviction.evictor.Evicting`. What several methods share stands in
``parts``; ``methods`` has one file per method.
"""

from lightkv.contract.decoding import DecodePolicy, DecodeView, Grow
from lightkv.eviction import methods
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.tgvkv import TGVKV
from lightkv.eviction.parts.decoding import EvictOne, FixedSlot, HoldBudget

__all__ = [
    "TGVKV",
    "DecodePolicy",
    "DecodeView",
    "EvictOne",
    "Evicting",
    "FixedSlot",
    "Grow",
    "HoldBudget",
    "methods",
]
