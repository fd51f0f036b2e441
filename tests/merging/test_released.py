"""Corners of the released rule that no recorded case may reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightkv.golden.lightkv import replay, skip_reason
from tests.merging.released import Spans, record, then_skipped

CORNERS: dict[str, tuple[int, Spans, int, float, float, float]] = {
    "one image": (60, [(5, 40)], 2, 0.5, 1, 0),
    "two images": (90, [(5, 40), (44, 79)], 1, 0.3, 1, 0),
    "images of unequal size": (113, [(4, 67), (71, 106)], 2, 0.5, 1, 0),
    "images of unequal size and no merge": (113, [(4, 67), (71, 106)], 2, 0.01, 1, 0),
    "images that touch, no text after": (76, [(4, 39), (40, 75)], 1, 0.5, 1, 0),
    "a ratio too small for any merge": (60, [(5, 40)], 2, 0.01, 1, 0),
    "no text at all": (36, [(0, 35)], 1, 0.5, 1, 0),
    "a count that float32 rounds up": (110, [(4, 103)], 1, 0.29, 1, 0),
    "a ratio above one half": (80, [(5, 68)], 2, 0.9, 1, 0),
    "wide logits": (80, [(5, 68)], 2, 0.5, 30, 0),
    "weights that underflow": (60, [(5, 40)], 1, 0.5, 1, 120),
    "weights near the denominator's floor": (60, [(5, 40)], 1, 0.5, 1, 20),
}


def made_up(corner: str, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    length, spans, windows, ratio, scale, lowered = CORNERS[corner]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(length, 8, generator=generator, dtype=dtype)
    logits = torch.randn(2, length, length, generator=generator, dtype=dtype) * scale
    for first, last in spans:
        logits[:, first : last + 1] -= lowered
    return record(hidden, logits, spans, windows, ratio)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_corner(corner: str, dtype: torch.dtype) -> None:
    case, arrays = made_up(corner, dtype)
    assert skip_reason(case) is None
    assert replay(case, arrays) == []


@pytest.mark.parametrize("corner", ["images of unequal size", "two images", "one image"])
def test_a_skipped_stage_leaves_what_the_stage_before_it_left(corner: str) -> None:
    case, arrays = then_skipped(*made_up(corner, torch.float32), windows=3)
    assert replay(case, arrays) == []
    moved = {**arrays, "s1_spans_out": arrays["s1_spans_out"] + 1}
    assert any("spans" in line for line in replay(case, moved))
