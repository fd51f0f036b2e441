"""Grounding: does a method look at the cells that hold what was asked?

A score over the vision tokens (attention, a ranking, what is kept) is compared with the cells that
the answer depends on, which the embedded tasks know, and with chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

Cells = frozenset[tuple[int, int, int]]

FEWEST: Final = 1
"""Cells that a question must be about to be scored."""


def grounding(values: xr.DataArray, data: xr.Dataset, cells: Sequence[Cells]) -> pd.DataFrame:
    """Share of a score that falls on the asked cells, against chance, per sample and layer.

    Args:
        values: (sample, layer, key), higher is more important; NaN for what is gone counts as 0.
        data: The dataset that ``values`` belongs to, for the cells of its tokens.
        cells: Per sample the (grid, row, col) cells asked about, grids as :func:`grid_numbers`
            counts them; samples with none are left out.

    Returns:
        Columns sample, layer, share (of the vision tokens' score on those cells), chance (their
        share of the vision tokens), lift (share / chance) and auc (probability that a random
        asked cell scores above a random other one, ties counting half; 0.5 is chance). Scores that
        differ by their rounding alone count as different.

    Raises:
        InvalidValueError: If there are not as many sets of cells as samples.
        InputError: If no sample has cells.
    """
    import pandas as pd

    if len(cells) != data.sizes["sample"]:
        raise InvalidValueError("cells", len(cells), f"one set per sample, {data.sizes['sample']}")
    rows: list[dict[str, Any]] = []
    for sample, asked in enumerate(cells):
        if len(asked) < FEWEST:
            continue
        vision = np.flatnonzero(data.key_kind.values[sample] == "vision")
        grids = grid_numbers(
            data.key_image.values[sample, vision], data.key_frame.values[sample, vision]
        )
        where = zip(
            grids.tolist(),
            data.key_row.values[sample, vision].tolist(),
            data.key_col.values[sample, vision].tolist(),
            strict=True,
        )
        inside = np.array([cell in asked for cell in where])
        for place, layer in enumerate(data.layer.values):
            score = np.nan_to_num(values.values[sample, place, vision].astype(float))
            rows.append({"sample": sample, "layer": int(layer), **_scores(score, inside)})
    if not rows:
        raise InputError("no question is about known cells; use a task that knows them")
    return pd.DataFrame(rows)


def grid_numbers(image: NDArray[np.int64], frame: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which picture, or step of a video, each token of a prompt shows, counted through the prompt.

    Args:
        image: (N,) number of the picture or video, -1 where no vision token.
        frame: (N,) step of the video, 0 in pictures, -1 where no vision token.

    Returns:
        (N,) int64; -1 where no vision token.
    """
    numbers = np.full(len(image), -1, np.int64)
    start = 0
    for one in np.unique(image[image >= 0]):
        shows = image == one
        numbers[shows] = start + frame[shows]
        start += int(frame[shows].max()) + 1
    return numbers


def _scores(score: Any, inside: Any) -> dict[str, float]:
    total, chance = score.sum(), inside.mean()
    share = float(score[inside].sum() / total) if total > 0 else float("nan")
    return {
        "share": share,
        "chance": float(chance),
        "lift": share / float(chance) if chance > 0 else float("nan"),
        "auc": _auc(score, inside),
    }


def _auc(score: Any, inside: Any) -> float:
    from scipy.stats import rankdata

    positive, negative = int(inside.sum()), int((~inside).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(score)[inside].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def word_weight(data: xr.Dataset, words: frozenset[str]) -> pd.DataFrame:
    """Share of the dominant-text-token weight (TGV-KV, Eq. 7) that falls on some words.

    Args:
        data: With ``text_weight``.
        words: The words that count, such as colours and shapes.

    Returns:
        Columns sample, layer, share, chance (share of the text tokens that are such words), lift
        and top (whether the heaviest text token is such a word; of equal ones the first counts).
        Samples without such a word are left out.

    Raises:
        InputError: If no sample has such a word.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for sample in range(data.sizes["sample"]):
        text = np.flatnonzero(data.key_kind.values[sample] == "text")
        inside = np.array([t.strip() in words for t in data.key_text.values[sample, text]])
        if not inside.any():
            continue
        for place, layer in enumerate(data.layer.values):
            weight = data["text_weight"].values[sample, place, text]
            scores = _scores(weight, inside)
            del scores["auc"]
            top = bool(inside[int(weight.argmax())])
            rows.append({"sample": sample, "layer": int(layer), **scores, "top": top})
    if not rows:
        raise InputError("no question holds any of the words")
    return pd.DataFrame(rows)
