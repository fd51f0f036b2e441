"""Marked positions: the host finds those of a layout as the device finds those of a mask."""

from __future__ import annotations

import pytest
import torch

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.marked import Marked, tokens
from tests.merging.views import row_layout

ROWS = [row_layout([Grid(1, 2, 3)]), row_layout([Grid(1, 2, 2), Grid(1, 1, 2)], text=5)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["real", "vision", "text", "question"])
def test_tokens_of_a_kind_are_those_of_its_mask(kind: str, count: int) -> None:
    layout = TokenLayout.stack(ROWS[:count])
    mask = getattr(layout, kind)
    ours, theirs = tokens(layout, kind), Marked.of(mask)  # type: ignore[arg-type]
    assert torch.equal(ours.index, theirs.index) and torch.equal(ours.valid, theirs.valid)
    # Both rows have six vision tokens; of all else the second has more.
    assert ours.filled is theirs.filled is (count == 1 or kind == "vision")
    for row, places in enumerate(mask):
        found = ours.index[row][ours.valid[row]]
        assert torch.equal(found, places.nonzero()[:, 0])


def test_marked_positions_stay_what_they_are() -> None:
    everywhere = Marked.everywhere(2, 3, torch.device("cpu"))
    assert everywhere.index.tolist() == [[0, 1, 2]] * 2
    assert everywhere.valid.tolist() == [[True] * 3] * 2 and everywhere.filled
    assert Marked.of(everywhere) is everywhere
    nothing = Marked.of(torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.index.shape == (2, 0) and nothing.filled
