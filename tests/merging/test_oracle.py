"""LightKV against the token-by-token float64 oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.merging import LightKV
from tests.closeness import assert_close
from tests.merging.oracle import Token, merge_stage
from tests.merging.views import random_view, row_layout, row_of

GRIDS = [
    [Grid(1, 6, 6)],
    [Grid(1, 4, 9)],
    [Grid(1, 7, 3)],
    [Grid(1, 5, 5), Grid(1, 3, 8)],
    [Grid(3, 4, 5)],
    [Grid(1, 1, 11)],
]


def tokens_of(layout: TokenLayout, row: int = 0) -> list[Token]:
    tokens = []
    for n in range(layout.length):
        vision = bool(layout.vision[row, n])
        cell = None
        if vision:
            segment = int(layout.segment[row, n])
            grid = layout.grids[row][segment]
            column = int(layout.col[row, n])
            if column < grid.cols:
                number = segment * 1000 + int(layout.frame[row, n])
                cell = (number, grid.rows, grid.cols, int(layout.row[row, n]), column)
        tokens.append(Token(vision, cell))
    return tokens


@pytest.mark.parametrize("grids", GRIDS, ids=str)
@pytest.mark.parametrize("windows", [1, 2, 3])
@pytest.mark.parametrize("ratio", [0.5, 0.3])
def test_one_stage_equals_the_oracle(grids: list[Grid], windows: int, ratio: float) -> None:
    layout = row_layout(grids)
    view = random_view(layout, seed=windows, dtype=torch.float64, width=12)
    reduction = LightKV((0,), (windows,), (ratio,)).reduce(view)
    attention = view.read_attention()
    logits = attention.logits(torch.arange(layout.length)[None])[0].numpy()
    hidden, tokens, matrix = merge_stage(
        view.hidden[0].numpy(), logits, tokens_of(layout), windows, ratio
    )
    assert_close(reduction.matrix()[0].numpy(), matrix)
    assert_close(reduction.apply(view.hidden)[0].numpy(), hidden, 1e-12)
    after = layout.select(reduction.index, reduction.valid)
    assert tokens_of(after) == tokens


def test_chained_stages_on_a_batch_equal_the_oracle() -> None:
    """Later windows are cut by the cells of the tokens that are left."""
    rows = [[Grid(1, 8, 6)], [Grid(1, 5, 7), Grid(1, 4, 4)], [Grid(2, 4, 4)]]
    layout = TokenLayout.stack([row_layout(grids) for grids in rows])
    method = LightKV((0, 1, 2), (4, 2, 1), (0.5, 0.4, 0.5))
    states = [random_view(layout, seed=5, dtype=torch.float64).hidden[b] for b in range(len(rows))]
    expected = [state[layout.real[b]].numpy() for b, state in enumerate(states)]
    tokens = [tokens_of(row_layout(grids)) for grids in rows]
    hidden = None
    for stage in range(3):
        view = random_view(layout, seed=5 + stage, layer=stage, dtype=torch.float64, hidden=hidden)
        for b in range(len(rows)):
            alone = row_of(view, b)
            logits = alone.read_attention().logits(torch.arange(alone.layout.length)[None])[0]
            expected[b], tokens[b], _ = merge_stage(
                expected[b], logits.numpy(), tokens[b], method.windows[stage], method.ratios[stage]
            )
        reduction = method.reduce(view)
        hidden = reduction.apply(view.hidden)
        layout = layout.select(reduction.index, reduction.valid)
        for b in range(len(rows)):
            merged = hidden[b][layout.real[b]].numpy()
            assert_close(merged, expected[b], 1e-11)


def test_float32_stays_close_to_the_oracle_and_copies_bit_for_bit() -> None:
    layout = row_layout([Grid(1, 9, 9)])
    view = random_view(layout, seed=3, width=32)
    reduction = LightKV((0,), (2,), (0.4,)).reduce(view)
    logits = view.read_attention().logits(torch.arange(layout.length)[None])[0].double().numpy()
    expected, _, _ = merge_stage(view.hidden[0].double().numpy(), logits, tokens_of(layout), 2, 0.4)
    merged = reduction.apply(view.hidden)
    assert_close(merged[0].numpy(), expected, 1e-6)
    alone = reduction.sizes() == 1
    assert torch.equal(merged[alone], reduction.take(view.hidden)[alone])


def test_line_breaks_are_left_alone() -> None:
    """Vision slots without a cell of their own have the grid's width as column."""
    layout = row_layout([Grid(1, 4, 5)])
    columns = {f.name: getattr(layout, f.name) for f in dataclasses.fields(layout)}
    columns["grids"] = ((Grid(1, 4, 4),),)
    broken = TokenLayout(**columns)
    reduction = LightKV((0,), (1,), (0.5,)).reduce(random_view(broken))
    kept = reduction.index[0].tolist()
    breaks = [n for n in range(broken.length) if int(broken.col[0, n]) == 4]
    assert len(breaks) == 4
    assert all(n in kept for n in breaks)
    assert reduction.sizes()[0][[kept.index(n) for n in breaks]].tolist() == [1, 1, 1, 1]
    assert reduction.new_length == layout.length - 8
