"""The one way in which tests say that numbers are close: a share of the largest magnitude.

Rounding errors of sums are of the size of the largest addend, not of the result: beside values of
15 a zero comes out as 1e-6 on one processor and as 0 on another. So a tolerance is a share of the
largest magnitude of what is compared, never of each element by itself, and where layers (or heads,
or rows) have scales of their own, the share is taken of each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

SINGLE = 1e-5
"""Allowed share where one side is float32: some thousand operations, each off by 6e-8."""
DOUBLE = 1e-10
"""Allowed share where both sides are float64."""

Floats = npt.NDArray[np.float64]


def assert_close(
    actual: Any,
    expected: Any,
    share: float | None = None,
    *,
    each: str | int | Sequence[str | int] = (),
    scale: float | None = None,
    note: object = "",
) -> None:
    """Asserts that two arrays differ by at most a share of the largest expected magnitude.

    Shapes must be equal (a single expected number stands for all), and NaN and infinities must
    stand at the same places; two tensors must be of one type.

    Args:
        actual: What the code under test gave: a tensor, array, labelled array, list or number.
        expected: What it should be.
        share: Of the largest finite magnitude of ``expected``, 0 for equality.
            By default `SINGLE`, or `DOUBLE` where neither side is of single precision.
        each: Axes (numbers, or names of a labelled array) along which scales differ: each index
            along them is compared with the largest magnitude of its own slice.
        scale: The magnitude of which ``share`` is a part, instead of that of ``expected``: where
            zeros are expected that large numbers leave when they cancel, or one unit.
        note: Stands at the start of the message.
    """
    wanted = _default(actual, expected) if share is None else share
    apart, largest, a, b = _compare(actual, expected, each, scale, note)
    allowed = wanted * np.broadcast_to(largest, a.shape)
    if (apart <= allowed).all():
        return
    over = apart / np.maximum(allowed, np.finfo(np.float64).tiny)
    worst = np.unravel_index(int(over.argmax()), over.shape)
    size = float(np.broadcast_to(largest, a.shape)[worst])
    at = tuple(int(index) for index in worst)
    raise AssertionError(
        f"{_start(note)}{int((apart > allowed).sum())} of {a.size} numbers are too far apart; "
        f"the worst{f', at {at},' if at else ''} is {a[worst]:.9g} where {b[worst]:.9g} is "
        f"expected: {_share(float(apart[worst]), size)}, and {wanted:.1e} is allowed"
    )


def distance(
    actual: Any,
    expected: Any,
    *,
    each: str | int | Sequence[str | int] = (),
    scale: float | None = None,
) -> float:
    """Largest difference as a share of the largest expected magnitude, to say what is far apart.

    Arguments are those of `assert_close`; shapes and places of NaN and infinities must be equal
    here as well.
    """
    apart, largest, a, _ = _compare(actual, expected, each, scale, "")
    size = np.broadcast_to(largest, a.shape)
    if not apart.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return float((apart[apart > 0] / size[apart > 0]).max())


def _compare(
    actual: Any, expected: Any, each: Any, scale: float | None, note: object
) -> tuple[Floats, Floats, Floats, Floats]:
    """Differences, magnitudes they are shares of (they broadcast), and both sides."""
    axes = _axes(expected, each)
    if isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor):
        types = f"{_start(note)}{actual.dtype} where {expected.dtype} is expected"
        assert actual.dtype == expected.dtype, types
    if isinstance(actual, xr.DataArray) and isinstance(expected, xr.DataArray):
        assert actual.dims == expected.dims, f"{actual.dims} where {expected.dims} is expected"
    a, b = _floats(actual), _floats(expected)
    b = np.broadcast_to(b, a.shape) if b.ndim == 0 else b
    assert a.shape == b.shape, f"{_start(note)}shape {a.shape} where {b.shape} is expected"
    finite = np.isfinite(b)
    same = np.where(finite, np.isfinite(a), (a == b) | (np.isnan(a) & np.isnan(b)))
    if not same.all():
        at = tuple(int(index) for index in np.argwhere(~same)[0])
        words = f"{a[at]} where {b[at]} is expected, at {at}, the first of {int((~same).sum())}"
        raise AssertionError(f"{_start(note)}{words} such places")
    apart = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), 0)
    magnitude = np.where(finite, np.abs(np.where(finite, b, 0)), 0)
    others = tuple(axis for axis in range(a.ndim) if axis not in axes)
    largest = magnitude.max(axis=others, keepdims=True, initial=0)
    return apart, np.full_like(largest, scale) if scale is not None else largest, a, b


def _axes(expected: Any, each: Any) -> tuple[int, ...]:
    """Numbers of the axes that are compared slice by slice."""
    listed = (each,) if isinstance(each, str | int) else tuple(each)
    names = list(getattr(expected, "dims", ()))
    axes = [names.index(axis) if isinstance(axis, str) else axis for axis in listed]
    dimensions = np.ndim(expected)
    return tuple(axis % dimensions for axis in axes)


def _floats(value: Any) -> Floats:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, np.float64)


def _default(actual: Any, expected: Any) -> float:
    for side in (actual, expected):
        kind = str(getattr(side, "dtype", "float64"))
        if "float" in kind and "64" not in kind:
            return SINGLE
    return DOUBLE


def _share(apart: float, size: float) -> str:
    if size == 0:
        return f"{apart:.1e} off beside nothing but zeros"
    return f"{apart / size:.1e} of the largest magnitude {size:.3g}"


def _start(note: object) -> str:
    return f"{note}: " if str(note) else ""
