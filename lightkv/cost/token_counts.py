"""How many tokens each layer sees and keeps under a schedule: counts only, nothing is run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Literal

from lightkv.cost.presets import MergeSchedule
from lightkv.errors import InvalidValueError

Partition = Literal["true-grid", "square"]
"""What the windows of a stage are cut on: the grids of the image ("true-grid", LightKV's default),
or the sequence re-read as a square ("square", as in the released code)."""

Grids = Sequence[tuple[int, int]]
"""Rows and columns of the grids of an image."""


def floor_share(share: float, count: int) -> int:
    """floor(share * count), exact on the number that was written.

    A product of floats is not: 0.29 of 100 gives 28.999999999999996.
    """
    return math.floor(as_written(float(share)) * count)


@cache
def as_written(share: float) -> Fraction:
    """The number that a float was written as.

    That is the one fraction with a denominator of at most a million whose float it is (29/100 for
    0.29, 1/3 for 1/3), else its shortest decimal.
    """
    simple = Fraction(share).limit_denominator(10**6)
    return simple if float(simple) == share else Fraction(repr(share))


def merges(tokens: int, ratio: float) -> int:
    """Merges in a window of m tokens: min(floor(ratio m), floor(m / 2)) (LightKV, Eq. 6)."""
    return min(floor_share(ratio, tokens), tokens // 2)


def window_sizes(tokens: int, windows: int) -> tuple[int, ...]:
    """Tokens in each of ``windows`` x ``windows`` windows of a square, empty ones left out.

    The sequence is read as a square of side ceil(sqrt(tokens)) whose last cells may be empty. A
    side is cut into ``windows`` parts, the first (side mod windows) of them one longer. Windows
    are numbered row by row.
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


def stage_windows(
    vision_tokens: int,
    schedule: MergeSchedule,
    grids: Grids = (),
    partition: Partition = "true-grid",
) -> tuple[tuple[int, ...], ...]:
    """Tokens in each window at each stage, before the stage merges.

    On the true grid a later stage finds what earlier ones left in its windows. Where windows cut
    across earlier ones that depends on which tokens merged, and so on the image; counted here is
    an image whose tokens are all alike, so that the first of them merge.

    Args:
        vision_tokens: Of the image. Those without a cell on ``grids`` (line breaks) never merge on
            the true grid.
        schedule: When how much is merged in how many windows.
        grids: Rows and columns of the image's grids; needed for the true grid.
        partition: What windows are cut on.

    Raises:
        InvalidValueError: If the true grid is asked for and ``grids`` don't fit: none for an image
            with tokens, more cells than tokens, a side shorter than its windows.
    """
    if partition == "square":
        sizes, left = [], vision_tokens
        for windows, ratio in zip(schedule.windows, schedule.ratios, strict=True):
            sizes.append(window_sizes(left, windows))
            left -= sum(merges(m, ratio) for m in sizes[-1])
        return tuple(sizes)
    _check_grids(vision_tokens, schedule, grids)
    stages = zip(*(_grid_windows(rows, cols, schedule) for rows, cols in grids), strict=True)
    return tuple(tuple(itertools.chain(*sizes)) for sizes in stages)


def _check_grids(vision_tokens: int, schedule: MergeSchedule, grids: Grids) -> None:
    cells = sum(rows * cols for rows, cols in grids)
    if not grids or cells > vision_tokens or min(min(sides) for sides in grids) < 1:
        allowed = (
            f"rows and columns of all grids of an image of {vision_tokens} vision tokens, "
            "or partition='square'"
        )
        raise InvalidValueError("grids", tuple(grids), allowed)
    side = min(min(sides) for sides in grids)
    if schedule.windows and max(schedule.windows) > side:
        allowed = f"at most {side} per side, the shortest of the grids {list(grids)}"
        raise InvalidValueError("windows", schedule.windows, allowed)


def _grid_windows(rows: int, cols: int, schedule: MergeSchedule) -> Iterator[tuple[int, ...]]:
    """Tokens in each window of one grid, stage by stage."""
    import numpy as np

    there = np.ones((rows, cols), dtype=bool)
    for windows, ratio in zip(schedule.windows, schedule.ratios, strict=True):
        sizes = []
        # array_split gives the first (side mod windows) parts one more, and views of the grid.
        for band in np.array_split(there, windows, axis=0):
            for window in np.array_split(band, windows, axis=1):
                own_rows, own_cols = window.nonzero()
                sizes.append(len(own_rows))
                gone = slice(0, 2 * merges(len(own_rows), ratio), 2)
                window[own_rows[gone], own_cols[gone]] = False
        yield tuple(sizes)


def tokens_per_layer(
    layers: int,
    vision_tokens: int,
    text_tokens: int,
    schedule: MergeSchedule | None = None,
    grids: Grids = (),
    partition: Partition = "true-grid",
) -> tuple[int, ...]:
    """Tokens that each decoder layer processes in prefill, and caches.

    A stage at 0-based layer λ takes effect from layer λ + 1; layer λ still caches in full. For
    ``grids`` and ``partition`` see :func:`stage_windows`.

    Raises:
        InvalidValueError: If a stage lies beyond the last layer, or as :func:`stage_windows` says.
    """
    if schedule is None:
        return (vision_tokens + text_tokens,) * layers
    if schedule.layers and schedule.layers[-1] >= layers:
        raise InvalidValueError("layers", schedule.layers, f"layer numbers below {layers}")
    sizes = stage_windows(vision_tokens, schedule, grids, partition) if vision_tokens else ()
    gone = {
        layer: sum(merges(m, ratio) for m in windows)
        for layer, windows, ratio in zip(schedule.layers, sizes, schedule.ratios, strict=False)
    }
    counts, vision = [], vision_tokens
    for layer in range(layers):
        counts.append(vision + text_tokens)
        vision -= gone.get(layer, 0)
    return tuple(counts)


def entries_per_layer(
    tokens: Sequence[int], retention: float | Sequence[float] | None = None
) -> tuple[int, ...]:
    """KV entries that each layer keeps after prefill: floor(retention * tokens), at least one.

    Args:
        tokens: Tokens that each layer cached.
        retention: Share kept, one for all layers or one each, in (0, 1]; ``None`` keeps all.

    Raises:
        InvalidValueError: If a share is out of range, or there are not as many as layers.
    """
    if retention is None:
        return tuple(tokens)
    shares = [retention] * len(tokens) if isinstance(retention, int | float) else list(retention)
    if len(shares) != len(tokens):
        raise InvalidValueError("retention", retention, f"one share or {len(tokens)}, one a layer")
    if not all(0 < share <= 1 for share in shares):
        raise InvalidValueError("retention", retention, "above 0 and at most 1")
    return tuple(max(1, floor_share(s, n)) for s, n in zip(shares, tokens, strict=True))


def token_layer_fraction(layers: int, schedule: MergeSchedule) -> float:
    """Vision token-layers processed in prefill, as a share of all (LightKV, Eq. 9).

    λ counts the layers run before a stage, rounding is ignored. Example of the paper: 40 layers,
    Λ = 10, 20, 30 and ratios of a half give 46.9 %. The tables' "55 %" is this share.

    Raises:
        InvalidValueError: If a stage lies beyond the last layer.
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
