"""How many tokens each layer sees and keeps under a schedule: counts only, nothing is run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lightkv.cost.presets import MergeSchedule
from lightkv.errors import InvalidValueError


def window_sizes(tokens: int, windows: int) -> tuple[int, ...]:
    """Tokens in each of ``windows`` x ``windows`` windows, row by row, empty ones left out.

    The sequence is read as a square of side ceil(sqrt(tokens)) whose last cells may be empty. A
    side is cut into ``windows`` parts, the first (side mod windows) of them one longer.
    """
    if tokens == 0:
        return ()
    side = math.isqrt(tokens - 1) + 1
    length, longer = divmod(side, windows)
    borders = [i * length + min(i, longer) for i in range(windows + 1)]
    spans = list(itertools.pairwise(borders))
    sizes = (
        sum(max(0, min(right, tokens - row * side) - left) for row in range(top, bottom))
        for top, bottom in spans
        for left, right in spans
    )
    return tuple(size for size in sizes if size)


def merged_tokens(tokens: int, windows: int, ratio: float) -> int:
    """Tokens left by one merge stage: each window of m loses min(floor(ratio m), floor(m / 2)).

    The released rule: 576 tokens with windows 4, 2, 1 and ratio 0.5 become 288, 145, 73.
    """
    sizes = window_sizes(tokens, windows)
    return tokens - sum(min(math.floor(ratio * m), m // 2) for m in sizes)


def tokens_per_layer(
    layers: int, vision_tokens: int, text_tokens: int, schedule: MergeSchedule | None = None
) -> tuple[int, ...]:
    """Tokens that each decoder layer processes in prefill, and caches.

    A stage at 0-based layer λ takes effect from layer λ + 1; layer λ still caches in full.
    """
    if schedule is None:
        return (vision_tokens + text_tokens,) * layers
    if schedule.layers and schedule.layers[-1] >= layers:
        raise InvalidValueError("layers", schedule.layers, f"layer numbers below {layers}")
    stages = dict(
        zip(schedule.layers, zip(schedule.windows, schedule.ratios, strict=True), strict=True)
    )
    counts, vision = [], vision_tokens
    for layer in range(layers):
        counts.append(vision + text_tokens)
        if layer in stages:
            vision = merged_tokens(vision, *stages[layer])
    return tuple(counts)


def entries_per_layer(
    tokens: Sequence[int], retention: float | Sequence[float] | None = None
) -> tuple[int, ...]:
    """KV entries that each layer keeps after prefill: floor(retention * tokens), at least one.

    Args:
        tokens: Tokens that each layer cached.
        retention: Share kept, one for all layers or one each, in (0, 1]; ``None`` keeps all.
    """
    if retention is None:
        return tuple(tokens)
    shares = [retention] * len(tokens) if isinstance(retention, int | float) else list(retention)
    if len(shares) != len(tokens):
        raise InvalidValueError("retention", retention, f"one share or {len(tokens)}, one a layer")
    if not all(0 < share <= 1 for share in shares):
        raise InvalidValueError("retention", retention, "above 0 and at most 1")
    return tuple(max(1, math.floor(s * n)) for s, n in zip(shares, tokens, strict=True))


def token_layer_fraction(layers: int, schedule: MergeSchedule) -> float:
    """Vision token-layers processed in prefill, as a share of all (LightKV, Eq. 9).

    λ counts the layers run before a stage, rounding is ignored. Example of the paper: 40 layers,
    Λ = 10, 20, 30 and ratios of a half give 46.9 %. The tables' "55 %" is this share.
    """
    if schedule.layers and schedule.layers[-1] > layers:
        raise InvalidValueError("layers", schedule.layers, f"at most {layers}")
    borders = (0, *schedule.layers, layers)
    processed, share = 0.0, 1.0
    for (start, end), ratio in zip(
        itertools.pairwise(borders), (*schedule.ratios, 0.0), strict=True
    ):
        processed += (end - start) * share
        share *= 1 - ratio
    return processed / layers
