"""Evictors: what leaves the KV cache after prefill and while decoding.

Each is a budget over layers x a ranking of entries x a retention rule (x a decode policy, x a
merge), see :class:`~lightkv.eviction.evictor.Evicting`; the named ones are in
:mod:`~lightkv.eviction.methods`.
"""

from lightkv.contract.decoding import DecodePolicy, DecodeView, Grow
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods import METHODS, TGVKV, method, methods
from lightkv.eviction.parts.decoding import EvictOne, FixedSlot, HoldBudget

__all__ = [
    "METHODS",
    "TGVKV",
    "DecodePolicy",
    "DecodeView",
    "EvictOne",
    "Evicting",
    "FixedSlot",
    "Grow",
    "HoldBudget",
    "method",
    "methods",
]
