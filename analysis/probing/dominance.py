"""Do single words dominate the text's attention, more than words at random would?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def heaviest(data: xr.Dataset, seed: int = 0) -> pd.DataFrame:
    """The largest weight among text tokens (TGV-KV, Eq. 7); needs ``attention_map``, head mean.

    Of many words one is the heaviest by chance. So the same is measured after the attention of
    every text token to the text tokens before it and itself has been shuffled among them.

    Args:
        data: What was probed.
        seed: Of the shuffling.

    Returns:
        Columns sample, layer, value and shuffled: times the even share of the weight.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for sample in range(data.sizes["sample"]):
        text = np.flatnonzero(data.key_kind.values[sample] == "text")
        for layer in data.layer.values:
            attention = data["attention_map"].sel(layer=layer).values[sample]
            block = np.tril(attention[np.ix_(text, text)].astype(float))
            generator = np.random.default_rng([seed, sample, int(layer)])
            rows.append(
                {
                    "sample": sample,
                    "layer": int(layer),
                    "value": _largest(block),
                    "shuffled": _largest(_shuffled(block, generator)),
                }
            )
    return pd.DataFrame(rows)


def _largest(block: Array) -> float:
    """Largest weight of a lower triangle (queries, keys), times the even share."""
    count = len(block)
    weight = block.sum(0) / np.arange(count, 0, -1)
    return float(weight.max() / weight.sum() * count)


def _shuffled(block: Array, generator: np.random.Generator) -> Array:
    """Each row of a lower triangle in another order of its own."""
    mixed = np.zeros_like(block)
    for query, row in enumerate(block):
        mixed[query, : query + 1] = generator.permutation(row[: query + 1])
    return mixed


def troughs(data: xr.Dataset) -> pd.DataFrame:
    """Log of mean attention per pair, text to vision over text to text; needs ``block_mean``.

    Returns:
        Columns sample, layer and value.
    """
    from analysis.probing.modality_gap import tidy

    means = data["block_mean"]
    ratio = tidy(means.sel(block="TV", drop=True) / means.sel(block="TT", drop=True))
    return ratio.assign(value=np.log(ratio["value"]))
