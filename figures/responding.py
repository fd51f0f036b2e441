"""Which tasks tell settings apart: only there does a comparison of scores say something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.scoring.leads import Score, apart_by_score, scores_of

if TYPE_CHECKING:
    import pandas as pd

RESPONDS: Final = (0.1, 0.9)
"""Shares of the full cache's score below or above which all settings of a task look alike."""


def responding(
    cells: Sequence[pd.DataFrame], whole: pd.DataFrame | None
) -> tuple[list[pd.DataFrame], str]:
    """The rows of tasks that tell settings apart, and why there are none.

    A task counts unless all cells score below 10 % of the full cache there, or all above 90 %. So
    does each score of a benchmark.

    Args:
        cells: Rows of each setting that is compared.
        whole: Rows of the full cache; None leaves all tasks in.

    Returns:
        The cells' rows, and "" or a reason.
    """
    if whole is None or any(cell.empty for cell in cells):
        return list(cells), ""
    full = scores_of(whole)
    scored = [scores_of(cell) for cell in cells]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.array([[one.get(name, np.nan) for name in full] for one in scored])
        shares = shares / np.array(list(full.values()))
    floor, ceiling = (shares < RESPONDS[0]).all(0), (shares > RESPONDS[1]).all(0)
    # A task that the full cache can't answer either has no share.
    tell = ~(floor | ceiling | np.isnan(shares).any(0))
    if tell.any():
        names = [name for name, tells in zip(full, tell, strict=True) if tells]
        return [_rows_of(cell, names) for cell in cells], ""
    low, high = (f"{100 * share:g} %" for share in RESPONDS)
    words = [f"floor (below {low})"] * bool(floor.any()) + [f"ceiling (above {high})"] * bool(
        ceiling.any()
    )
    return [], f"every task is at {' or '.join(words)} of the full cache's score in every setting"


def _rows_of(cell: pd.DataFrame, names: Sequence[Score]) -> pd.DataFrame:
    """Rows of some tasks, or of some scores of benchmarks."""
    import pandas as pd

    return pd.concat([rows for name, rows in apart_by_score(cell).items() if name in names])
