"""X-6's figure: scores of every method at every retention, one panel a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from figures.artefacts.shared import pick
from figures.style import sheet, text_on
from lightkv.prompting import QUESTION_AGNOSTIC, QUESTION_FIRST, SECOND_TURN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROTOCOLS: Final = (QUESTION_FIRST, QUESTION_AGNOSTIC, SECOND_TURN)
VANILLA: Final = "vanilla"
OWN: Final = "own"
VARIANTS: Final = ("tvb", "budget-", "rank-")
"""Rows of the ablations, which have artefacts of their own."""

WHOLE: Final = 0.999

Values = np.ndarray[Any, np.dtype[np.float64]]


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score over tasks and mean share of the cache held, per cell of the figure."""
    shown = frame[~frame["method"].str.startswith(VARIANTS)]
    keys = ["protocol", "method", "retention"]
    # The mean over tasks, each counting alike.
    tasks = shown.groupby([*keys, "task"], dropna=False, sort=False)[["score", "kv_share"]].mean()
    cells = tasks.groupby(keys, dropna=False, sort=False).mean().reset_index()
    # The released TGV-KV leaves a prompt without question as it is: no compression to show.
    return cells[(cells["method"] == VANILLA) | (cells["kv_share"] < WHOLE)]


def draw(frame: pd.DataFrame) -> Figure:
    """One heat map a protocol: methods by retentions, best methods on top."""
    data = plotted(frame)
    methods, retentions = _ordered(data), retentions_of(data)
    protocols = [name for name in PROTOCOLS if name in set(data["protocol"])]
    figure = sheet(1.1 + 0.168 * len(methods))
    axes = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    images = []
    for place, protocol in zip(axes, protocols, strict=True):
        cells = pick(data, protocol=protocol)
        images.append(_heat(place, _grid(cells, methods, retentions), methods, retentions))
        place.set_title(protocol)
        place.set_xlabel("retention, %")
    figure.colorbar(
        images[0], ax=list(axes), location="bottom", aspect=60, pad=0.01, label="mean score, %"
    )
    return figure


def _heat(axes: Axes, grid: Values, methods: list[str], retentions: list[float]) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = colormaps["cividis"].with_extremes(bad="#EEEEEE")
    scores = np.ma.masked_invalid(100 * grid)
    image = axes.imshow(scores, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(np.isfinite(grid)):
        score = float(grid[row, column])
        shade = text_on(to_hex(colours(score)))
        axes.text(column, row, f"{100 * score:.0f}", ha="center", va="center", size=8, color=shade)
    axes.set_xticks(range(len(retentions) + 1), [*(f"{100 * r:g}" for r in retentions), OWN])
    axes.set_yticks(range(len(methods)), methods)
    axes.tick_params(length=0)
    axes.grid(False)
    return image


def _grid(data: pd.DataFrame, methods: list[str], retentions: list[float]) -> Values:
    """(methods, retentions + 1) scores; the last column is for methods without a retention."""
    grid = np.full((len(methods), len(retentions) + 1), np.nan)
    for row in data.to_dict("records"):
        retention = row["retention"]
        column = len(retentions) if retention != retention else retentions.index(retention)
        grid[methods.index(row["method"]), column] = row["score"]
    return grid


def _ordered(data: pd.DataFrame) -> list[str]:
    """The full cache, then methods with retentions, then those without, best first."""
    first = pick(data, protocol=QUESTION_FIRST)
    score = first.groupby("method")["score"].mean().sort_values(ascending=False)
    swept = set(data.dropna(subset=["retention"])["method"])
    names = [name for name in score.index if name != VANILLA]
    rest = [name for name in dict.fromkeys(data["method"]) if name not in (*names, VANILLA)]
    every = [*names, *rest]
    return [VANILLA, *(n for n in every if n in swept), *(n for n in every if n not in swept)]


def retentions_of(data: pd.DataFrame) -> list[float]:
    """Retentions that rows were asked at, the largest first."""
    return sorted(data["retention"].dropna().unique().tolist(), reverse=True)
