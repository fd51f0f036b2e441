"""Methods at equal shares: of the token-layers, of the cache or of the vision tokens.

LightKV's tables compare methods at a share of the vision token-layers processed in prefill (Eq. 9),
its "55 %". Merging methods have LightKV's stages then: the paper's at the model's depth for 55 %,
else those of three halving stages that come nearest. FastV acts after the share of the layers that
it was published with, HiRED before the first. Methods after prefill hold the share of the cache.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from lightkv import LightKV
from lightkv.catalogue import method
from lightkv.cost.presets import MergeSchedule, preset, presets
from lightkv.cost.workload import Workload, workload_cost
from lightkv.errors import InvalidValueError
from lightkv.merging.schedule import at_share, scaled

if TYPE_CHECKING:
    from lightkv.contract.compressor import Compressor
    from lightkv.cost.presets import ModelPreset

VANILLA: Final = "vanilla"
MERGERS: Final = ("lightkv", "tome", "pitome", "tofu")
PAPER_SHARE: Final = 0.55
FASTV_LAYER: Final = 2 / 32
"""K of FastV, as a share of the layers of the model it was published for."""


def at_token_share(name: str, share: float, depth: int) -> Compressor:
    """A method of LightKV's tables at a share, for a model of ``depth`` layers.

    Raises:
        UnknownNameError: There is no such method.
        InvalidValueError: The share can't be reached.
    """
    if name in MERGERS:
        schedule = _stages(share, depth)
        if name == "lightkv":
            return LightKV.of(schedule)
        return method(name, layers=schedule.layers, ratios=schedule.ratios)
    if name == "fastv":
        layer, removed = _fastv(share, depth)
        return method(name, layer=layer, removed=removed)
    if name == "hired":
        return method(name, kept=share)
    if name == "tome-cache":
        return method(name, ratio=min(0.5, round(1 - share, 4)))
    return method(name, share)


def reachable(name: str, share: float, depth: int) -> bool:
    """Whether a method can process a share as small as that in a model of ``depth`` layers."""
    try:
        at_token_share(name, share, depth)
    except InvalidValueError:
        return False
    return True


def pruned(name: str, share: float, tokens: int) -> Compressor:
    """A pruner that leaves a share of ``tokens`` vision tokens.

    VisionZip splits them as published, 54 dominant ones to 10 merged.
    """
    count = round(share * tokens)
    if name == "divprune":
        return method(name, kept=share)
    if name == "visionzip":
        merged = max(1, round(count * 10 / 64))
        return method(name, dominant=count - merged, contextual=merged)
    return method(name, tokens=count)


def method_cost(model: str, name: str, share: float) -> tuple[float, float] | None:
    """TFLOPs and KV GiB of a request under a method of LightKV's tables.

    Args:
        model: A preset.
        name: Registered name, "vanilla" for the full cache.
        share: Of the token-layers, or of the cache for methods after prefill.

    Returns:
        None for a model without a preset. FLOPs are NaN where parts of the model are not counted.
    """
    if model not in presets():
        return None
    known = preset(model)
    request, schedule, retention = Workload.of(known), None, None
    depth = known.shape.text.layers
    if name in MERGERS:
        schedule = _published(known, share)
    elif name == "fastv":
        layer, removed = _fastv(share, depth)
        schedule = MergeSchedule((layer - 1,), (1,), (removed,))
    elif name == "hired":
        request = dataclasses.replace(request, vision_tokens=round(share * known.vision_tokens))
    elif name != VANILLA:
        retention = share
    cost = workload_cost(
        known.shape, request, schedule=schedule, partition="square", retention=retention
    )
    return float("nan") if known.unmodelled else cost.flops.tera, cost.kv.gib


def _published(known: ModelPreset, share: float) -> MergeSchedule:
    """The model's own schedule for the paper's share, if one was published."""
    if share == PAPER_SHARE and known.schedules:
        return known.schedules[0]
    return _stages(share, known.shape.text.layers)


def _stages(share: float, depth: int) -> MergeSchedule:
    return scaled(depth) if share == PAPER_SHARE else at_share(depth, share)


def _fastv(share: float, depth: int) -> tuple[int, float]:
    """Layers that see everything, and the share of the vision tokens that is dropped after."""
    first = max(1, round(FASTV_LAYER * depth))
    return first, round((1 - share) * depth / (depth - first), 4)
