"""Random eviction, of everything or of vision entries alone (LightKV's tables)."""

from __future__ import annotations

from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.rankings import Random
from lightkv.eviction.parts.selections import ByScore, VisionOnly


@register("random")
def random(retention: float) -> Evicting:
    """A random subset of all entries (Rand in LightKV's tables)."""
    return Evicting(Uniform(), Random(), ByScore(), retention, protect_first=0, protect_last=0)


@register("random-vision")
def random_vision(retention: float) -> Evicting:
    """A random subset of the vision entries, all text kept (ImgRand in LightKV's tables)."""
    selection = VisionOnly(ratio_of="all")
    return Evicting(Uniform(), Random(), selection, retention, protect_first=0, protect_last=0)
