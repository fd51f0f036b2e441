"""The modality gap as data: how alike tokens are, how strong blocks are, what eviction would take.

Every function takes a dataset that :func:`analysis.probing.probe.probe` returned with the
quantities it names, and returns a tidy frame with one row per sample, layer and whatever else it
distinguishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def similarity(data: xr.Dataset) -> pd.DataFrame:
    """Mean local similarity by kind (TGV-KV, Figure 1 a); needs ``local_similarity``.

    Returns:
        Columns sample, layer, k, kind ("vision", "text") and value (mean cosine).
    """
    return _by_kind(data, "local_similarity")


def blocks(data: xr.Dataset, quantity: str = "block_mean") -> pd.DataFrame:
    """Strength of each attention block per layer; needs ``block_mean`` or ``block_sum``.

    Returns:
        Columns sample, layer, block and value.
    """
    return tidy(data[quantity])


def budgets(data: xr.Dataset, block: str = "TV") -> pd.DataFrame:
    """Share of the total budget that each layer gets (TGV-KV, Eq. 5); needs ``block_sum``.

    Returns:
        Columns sample, layer and value; the values of a sample sum to 1.
    """
    strength = data["block_sum"].sel(block=block)
    return tidy(strength / strength.sum("layer"))


def accumulated(data: xr.Dataset, share: float = 0.05) -> pd.DataFrame:
    """Attention that each token accumulates over all layers and queries (Figure 1 c).

    Args:
        data: With ``accumulated_attention``.
        share: Of the tokens that ranking by it would keep.

    Returns:
        Columns sample, position, kind, value and kept.

    Raises:
        InvalidValueError: If ``share`` does not lie in (0, 1].
    """
    return _ranked(data["accumulated_attention"].sum("layer", skipna=False), data, share)


def evicted(data: xr.Dataset, share: float = 0.05) -> pd.DataFrame:
    """What ranking by accumulated attention evicts in each layer; needs ``accumulated_attention``.

    Returns:
        Columns sample, layer, kind ("vision", "text") and value: the share of that kind's tokens
        that fall outside the top ``share`` of all tokens.
    """
    import pandas as pd

    parts = []
    for layer in data.layer.values:
        ranked = _ranked(data["accumulated_attention"].sel(layer=layer), data, share)
        lost = 1 - ranked.groupby(["sample", "kind"])["kept"].mean()
        parts.append(lost.rename("value").reset_index().assign(layer=int(layer)))
    frame = pd.concat(parts, ignore_index=True)
    return frame[frame["kind"].isin(["vision", "text"])].reset_index(drop=True)


def separation(data: xr.Dataset) -> pd.DataFrame:
    """How far text and vision states lie apart; needs ``hidden``.

    The distance of the centroids is given in units of the spread within the kinds (root mean
    square distance from the kind's centroid, both kinds alike). Separability is the share of tokens
    on the right side of the hyperplane halfway between the centroids.

    Returns:
        Columns sample, layer, measure ("centroid distance", "separability") and value.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for sample in range(data.sizes["sample"]):
        kind = data.key_kind.values[sample]
        for layer in data.layer.values:
            states = data["hidden"].sel(layer=layer).values[sample]
            sides = [states[kind == name] for name in ("vision", "text")]
            distance, right = _apart(*sides)
            common = {"sample": sample, "layer": int(layer)}
            rows.append({**common, "measure": "centroid distance", "value": distance})
            rows.append({**common, "measure": "separability", "value": right})
    return pd.DataFrame(rows)


def _apart(left: Any, right: Any) -> tuple[float, float]:
    centres = left.mean(0), right.mean(0)
    axis = centres[1] - centres[0]
    middle = (centres[0] + centres[1]) / 2
    spread = np.sqrt(
        np.mean(
            [
                ((side - c) ** 2).sum(1).mean()
                for side, c in zip((left, right), centres, strict=True)
            ]
        )
    )
    correct = [((left - middle) @ axis < 0).mean(), ((right - middle) @ axis > 0).mean()]
    return float(np.linalg.norm(axis) / spread), float(np.mean(correct))


def _ranked(values: xr.DataArray, data: xr.Dataset, share: float) -> pd.DataFrame:
    import pandas as pd

    if not 0 < share <= 1:
        raise InvalidValueError("share", share, "above 0, at most 1")
    parts = []
    for sample, length in enumerate(data.length.values):
        weights = values.values[sample, :length]
        kept = np.zeros(length, bool)
        # Ties go to the earlier token.
        kept[np.argsort(-weights, kind="stable")[: max(1, round(share * length))]] = True
        kind = data.key_kind.values[sample, :length]
        columns = {"position": np.arange(length), "kind": kind, "value": weights, "kept": kept}
        parts.append(pd.DataFrame({"sample": sample, **columns}))
    return pd.concat(parts, ignore_index=True)


def _by_kind(data: xr.Dataset, name: str) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for kind in ("vision", "text"):
        mean = data[name].where(data.key_kind == kind).mean("key")
        parts.append(tidy(mean).assign(kind=kind))
    return pd.concat(parts, ignore_index=True)


def tidy(values: xr.DataArray) -> pd.DataFrame:
    """Rows of an array, one per cell, without the coordinates that only describe."""
    plain = values.reset_coords(drop=True).rename("value")
    frame = plain.to_dataframe().reset_index()
    for dim in plain.dims:
        if dim not in plain.indexes:
            frame[str(dim)] = frame[str(dim)].astype(int)
    return frame
