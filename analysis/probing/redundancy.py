"""Redundancy of vision tokens: divergence, rank, what merging loses, and where tokens ended.

Every function takes a dataset of :func:`analysis.probing.probe.probe` with the quantities it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.probing.modality_gap import tidy

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

MEASURES: Final = ("effective_rank", "feature_divergence", "merge_error", "merge_agreement")
"""Quantities that :func:`profile` reads."""


def profile(data: xr.Dataset) -> pd.DataFrame:
    """Every redundancy measure that the dataset holds, as one tidy frame.

    Returns:
        Columns sample, layer, measure (see :data:`MEASURES`), value and, where they apply, kind
        ("vision", "text"), windows (per side; 1 is the whole image) and quantile.
    """
    import pandas as pd

    parts = [tidy(data[name]).assign(measure=name) for name in MEASURES if name in data]
    return pd.concat(parts, ignore_index=True)


def provenance(data: xr.Dataset, sample: int, layer: int) -> pd.DataFrame:
    """Where each vision token of a picture ended; needs ``merged_into`` and ``kept``.

    Returns:
        Columns row, col (the token's cell), target_row, target_col (the cell of the token that
        stands for it, -1 if it was dropped) and kept (share of KV heads that hold that entry).
    """
    import numpy as np
    import pandas as pd

    one = data.isel(sample=sample).sel(layer=layer)
    cells = np.flatnonzero(one.key_kind.values == "vision")
    into = one["merged_into"].values[cells]
    safe = np.clip(into, 0, None)
    gone = into < 0
    return pd.DataFrame(
        {
            "row": one.key_row.values[cells],
            "col": one.key_col.values[cells],
            "target_row": np.where(gone, -1, one.key_row.values[safe]),
            "target_col": np.where(gone, -1, one.key_col.values[safe]),
            "kept": np.where(gone, 0.0, one["kept"].values[safe]),
        }
    )
