"""The pictures that kept and merged tokens are drawn over, and drawing on their patch grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from figures.style import bare

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Pixels = np.ndarray[Any, np.dtype[np.float64]]

TILE = 16
"""Pixels that a patch is drawn with."""


def question(frame: pd.DataFrame) -> dict[str, Any]:
    """Task, seed and item of a frame's first question."""
    first = frame.iloc[0]
    return {"task": first["task"], "seed": int(first["seed"]), "item": int(first["item"])}


def pixels(frame: pd.DataFrame, rows: int, cols: int) -> Pixels:
    """The picture of a frame's first question, (rows TILE, cols TILE, 3) between 0 and 1.

    It comes from the task, as the study's question did; no model is involved.
    """
    from PIL import Image

    from analysis.tasks import task

    named = question(frame)
    items = task(named["task"]).items(named["item"] + 1, named["seed"])
    image = next(one for one in items if one.index == named["item"]).request().images[0]
    sized = image.convert("RGB").resize((cols * TILE, rows * TILE), Image.Resampling.LANCZOS)
    return np.asarray(sized, dtype=np.float64) / 255


def patch_means(picture: Pixels) -> Pixels:
    """Mean colour of every patch, (rows, cols, 3)."""
    rows, cols = picture.shape[0] // TILE, picture.shape[1] // TILE
    means: Pixels = picture.reshape(rows, TILE, cols, TILE, 3).mean((1, 3))
    return means


def show(axes: Axes, picture: Pixels, title: str) -> None:
    """A picture whose coordinates are patch rows and columns."""
    rows, cols = picture.shape[0] / TILE, picture.shape[1] / TILE
    axes.imshow(picture, extent=(0, cols, rows, 0), interpolation="nearest")
    axes.set_title(title)
    bare(axes)


def faded(picture: Pixels, keep: Pixels) -> Pixels:
    """The picture with the patches that are not kept turned to pale grey."""
    mask = np.kron(keep, np.ones((TILE, TILE)))[..., None] > 0
    grey = picture.mean(-1, keepdims=True)
    painted: Pixels = np.where(mask, picture, 0.82 + 0.15 * grey)
    return painted


def borders(axes: Axes, label: np.ndarray[Any, Any], color: str, width: float) -> None:
    """Lines between neighbouring patches of different labels, label (rows, cols)."""
    down = np.argwhere(label[:-1] != label[1:])
    across = np.argwhere(label[:, :-1] != label[:, 1:])
    segments = [[(c, r + 1), (c + 1, r + 1)] for r, c in down]
    segments += [[(c + 1, r), (c + 1, r + 1)] for r, c in across]
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(segments, colors=color, linewidths=width))
