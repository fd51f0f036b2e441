"""L-F6 and L-T5: one merging stage alone, after which layer and in how many windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from analysis.studies.base import SAMPLES, Settings, Tasks, register
from analysis.studies.sweep import Cell, sweep
from lightkv import LightKV

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

RATIO = 0.5
FINE_AND_COARSE = ("embedded/count", "embedded/read", "embedded/list", "embedded/caption")
"""One digit lies on one patch, a shape on a dozen: ``read`` needs every patch, the others don't."""


@register
def single_layer_sweep(
    vlm: VLM,
    *,
    tasks: Tasks = FINE_AND_COARSE,
    layers: Sequence[int] | None = None,
    windows: int = 2,
    ratio: float = RATIO,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Score against the single layer λ after which vision tokens merge.

    Args:
        vlm: The model.
        tasks: What is asked.
        layers: 0-based layers, None for every one but the last.
        windows: Windows per side; the paper does not say how many.
        ratio: Share of the vision tokens that merges away.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``layer``, NaN for the full cache.
    """
    swept = range(vlm.facts.layers - 1) if layers is None else layers
    cells = {
        f"layer {layer}": Cell(LightKV((layer,), (windows,), (ratio,)), {"layer": float(layer)})
        for layer in swept
    }
    return sweep(vlm, tasks, cells, {"layer": float("nan")}, samples, settings)


@register
def window_sweep(
    vlm: VLM,
    *,
    tasks: Tasks = FINE_AND_COARSE,
    windows: tuple[int, ...] = (1, 2, 4),
    layers: Sequence[int] | None = None,
    ratio: float = RATIO,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Window counts after a shallow and after a deep layer.

    Args:
        vlm: The model.
        tasks: What is asked.
        windows: Windows per side.
        layers: 0-based layers; None for those that lie where the paper's 3 and 14 of 32 do.
        ratio: Share of the vision tokens that merges away.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``layer`` and ``windows``, NaN for the full cache.
    """
    depth = vlm.facts.layers
    swept = (depth // 10, 7 * depth // 16) if layers is None else layers
    cells = {
        f"layer {layer}, {count} x {count} windows": Cell(
            LightKV((layer,), (count,), (ratio,)),
            {"layer": float(layer), "windows": float(count)},
        )
        for layer in swept
        for count in windows
    }
    nothing = {"layer": float("nan"), "windows": float("nan")}
    return sweep(vlm, tasks, cells, nothing, samples, settings)
