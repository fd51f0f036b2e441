"""Heaviest words against shuffled attention, and troughs, on small maps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.probing.dominance import heaviest, troughs

KINDS = np.array([["system", "vision", "text", "text", "text", "text"]])


def probed(attention: np.ndarray) -> xr.Dataset:  # type: ignore[type-arg]
    """One question of six tokens, one layer."""
    return xr.Dataset(
        {
            "attention_map": (("sample", "layer", "query", "key"), attention[None, None]),
            "block_mean": (("sample", "layer", "block"), [[[0.02, 0.08]]]),
        },
        coords={
            "layer": [3],
            "block": ["TV", "TT"],
            "key_kind": (("sample", "key"), KINDS),
        },
    )


def test_heaviest_word_times_the_even_share() -> None:
    attention = np.tril(np.full((6, 6), 0.1))
    attention[2:, 2] = 0.4
    frame = heaviest(probed(attention))
    assert frame[["sample", "layer"]].to_numpy().tolist() == [[0, 3]]
    assert frame["value"][0] == pytest.approx(0.4 / 0.7 * 4)
    # Shuffled, a row's attention stays in the row.
    assert 1 < frame["shuffled"][0] < frame["value"][0]
    assert heaviest(probed(attention), seed=0).equals(frame)


def test_even_attention_has_no_heaviest_word() -> None:
    frame = heaviest(probed(np.tril(np.full((6, 6), 0.1))))
    assert frame["value"][0] == pytest.approx(1) and frame["shuffled"][0] == pytest.approx(1)


def test_troughs_are_logs_of_ratios() -> None:
    frame = troughs(probed(np.eye(6)))
    assert frame["value"].tolist() == pytest.approx([np.log(0.25)])
    assert set(frame.columns) == {"sample", "layer", "value"}
