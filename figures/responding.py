"""Which tasks tell settings apart: only there does a comparison of scores say something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RESPONDS: Final = (0.1, 0.9)
"""Shares of the full cache's score below or above which all settings of a task look alike."""


def responding(
    cells: Sequence[pd.DataFrame], whole: pd.DataFrame | None
) -> tuple[list[pd.DataFrame], str]:
    """The rows of tasks that tell settings apart, and why there are none.

    A task counts unless all cells score below 10 % of the full cache there, or all above 90 %.

    Args:
        cells: Rows of each setting that is compared.
        whole: Rows of the full cache; None leaves all tasks in.

    Returns:
        The cells' rows, and "" or a reason.
    """
    if whole is None or any(cell.empty for cell in cells):
        return list(cells), ""
    full = whole.groupby("task")["score"].mean()
    shares = np.stack([cell.groupby("task")["score"].mean().reindex(full.index) for cell in cells])
    shares = shares / full.to_numpy()
    floor, ceiling = (shares < RESPONDS[0]).all(0), (shares > RESPONDS[1]).all(0)
    # A task that the full cache can't answer either has no share.
    tasks = full.index[~(floor | ceiling | np.isnan(shares).any(0))]
    if len(tasks):
        return [cell[cell["task"].isin(tasks)] for cell in cells], ""
    low, high = (f"{100 * share:g} %" for share in RESPONDS)
    words = [f"floor (below {low})"] * bool(floor.any()) + [f"ceiling (above {high})"] * bool(
        ceiling.any()
    )
    return [], f"every task is at {' or '.join(words)} of the full cache's score in every setting"
