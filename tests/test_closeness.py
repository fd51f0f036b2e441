"""The helper that all tests compare numbers with: what it lets pass and what it doesn't."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from tests.closeness import DOUBLE, SINGLE, assert_close, distance


def test_a_tolerance_is_a_share_of_the_largest_magnitude() -> None:
    expected = torch.tensor([15.0, 0.0, -3.0])
    assert_close(expected + torch.tensor([0.0, 1e-4, 0.0]), expected)
    with pytest.raises(AssertionError, match=r"1 of 3 .* at \(1,\), is 0\.0001999.*1\.3e-05 of"):
        assert_close(expected + torch.tensor([0.0, 2e-4, 0.0]), expected)
    assert_close(expected + 0.1, expected, share=0.01)


def test_each_slice_has_a_scale_of_its_own() -> None:
    expected = np.array([[100.0, 1.0], [0.1, 0.01]])
    off = expected + np.array([[0.0, 0.0], [0.0, 1e-3]])
    assert_close(off, expected, 1e-4)
    for each in (0, -2, (0,)):
        with pytest.raises(AssertionError, match=r"at \(1, 1\).*1\.0e-02 of the largest"):
            assert_close(off, expected, 1e-4, each=each)
    assert_close(off, expected, 1e-3, each=1)
    labelled = [xr.DataArray(values, dims=("layer", "key")) for values in (off, expected)]
    with pytest.raises(AssertionError, match="at"):
        assert_close(*labelled, 1e-4, each="layer")
    with pytest.raises(AssertionError, match="is expected"):
        assert_close(labelled[0].T, labelled[1])


def test_the_scale_can_be_said_where_zeros_are_expected() -> None:
    assert_close([0.0, 1e-9], [0.0, 0.0], 1e-6, scale=1)
    with pytest.raises(AssertionError, match="nothing but zeros"):
        assert_close([0.0, 1e-9], [0.0, 0.0])
    with pytest.raises(AssertionError, match="too far apart"):
        assert_close(1.6, 1.0, 0.5, scale=1)
    assert_close(1.5, 1.0, 0.5, scale=1)


def test_places_without_a_number_and_shapes_must_agree() -> None:
    expected = [np.nan, np.inf, 1.0]
    assert_close(expected, expected, share=0)
    for wrong in ([0.0, np.inf, 1.0], [np.nan, -np.inf, 1.0], [np.nan, np.inf, np.nan]):
        with pytest.raises(AssertionError, match="is expected, at"):
            assert_close(wrong, expected, 10)
    with pytest.raises(AssertionError, match=r"rows: shape \(3,\) where \(2,\)"):
        assert_close([1, 2, 3], [1, 2], note="rows")
    assert_close([2.0, 2.0], 2)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(2.0, [2.0, 2.0])
    with pytest.raises(AssertionError, match=r"float32 where torch\.float64"):
        assert_close(torch.ones(2), torch.ones(2).double())


def test_the_default_follows_from_the_precision() -> None:
    for kind, share in ((torch.float32, SINGLE), (torch.float64, DOUBLE)):
        one = torch.ones(2, dtype=kind)
        assert_close(one + share / 2, one)
        with pytest.raises(AssertionError):
            assert_close(one + 3 * share, one)
    assert_close(torch.ones(1) + 1e-6, [1.0])
    with pytest.raises(AssertionError):
        assert_close(1 + 1e-6, 1.0)


def test_distances() -> None:
    assert distance([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert distance([[1.0, 2.0], [0.2, 0.1]], [[1.0, 2.0], [0.1, 0.1]], each=0) == 1
    assert distance([0.0], [0.0]) == 0 and distance([1.0], [0.0]) == np.inf
    with pytest.raises(AssertionError, match="is expected, at"):
        distance([np.nan], [1.0])
