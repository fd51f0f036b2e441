"""Controls that look at no content: patches at even distances, and a smaller picture."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError
from lightkv.families.slots import Picture, Placed, Segment
from lightkv.families.slots import row_layout as placed_layout
from lightkv.pruning.cell_plans import blocks, centres, shared_out, spread
from lightkv.pruning.downsample import Downsample
from lightkv.pruning.uniform_grid import UniformGrid
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout


def view_of(layout: TokenLayout) -> LayerView:
    return dataclasses.replace(random_view(layout, layer=-1), attention=None, keys=None)


def pictured(*pictures: Picture, text: int = 3) -> TokenLayout:
    """One row of pictures and text after them."""
    count = sum(picture.tokens for picture in pictures)
    real = torch.ones(count + text, dtype=torch.bool)
    return placed_layout(real, [Placed(torch.arange(count), pictures)])


# ---------------------------------------------------------------- uniform-grid


def test_a_quarter_is_every_second_row_and_column() -> None:
    layout = row_layout([Grid(1, 6, 8)], system=0)
    kept = UniformGrid().reduce(view_of(layout)).index[0]
    cells = [(n // 8, n % 8) for n in kept.tolist() if n < 48]
    assert cells == [(r, c) for r in (1, 3, 5) for c in (1, 3, 5, 7)]


def test_the_sequence_keeps_every_fourth_token() -> None:
    layout = row_layout([Grid(1, 2, 4), Grid(1, 2, 4)], system=0, between=0)
    reduction = UniformGrid(spacing="sequence").reduce(view_of(layout))
    assert reduction.index[0].tolist()[:4] == [2, 6, 10, 14]


@given(st.integers(1, 24), st.integers(1, 24), st.booleans(), st.data())
def test_as_many_cells_stay_as_are_asked_for(
    rows: int, cols: int, breaks: bool, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1 + breaks, rows * (cols + breaks)))
    kept = spread([count], Grid(1, rows, cols), breaks)[0]
    lines = kept[:, :cols].any(1)
    if breaks:
        # With one column tokens come in pairs.
        assert torch.equal(lines, kept[:, cols])
        assert int(kept.sum()) == count + (count % 2 if cols == 1 else 0)
    else:
        assert int(kept[:, :cols].sum()) == count
        assert kept[:, cols].all()
    gaps = lines.nonzero()[:, 0].diff()
    assert not len(gaps) or int(gaps.max() - gaps.min()) <= 1


@given(st.integers(1, 50), st.integers(1, 50))
def test_centres_are_distinct_places_at_even_distances(count: int, length: int) -> None:
    places = centres(min(count, length), length)
    assert len(set(places)) == len(places) == min(count, length)
    assert 0 <= min(places) <= max(places) < length
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert abs(places[0] - (length - 1 - places[-1])) <= 1


@given(st.integers(0, 90), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_shares_add_up(total: int, sizes: list[int]) -> None:
    shares = shared_out(total, sizes)
    assert min(shares) >= 1
    assert sum(shares) >= total
    if all(total * size >= sum(sizes) for size in sizes):
        assert sum(shares) == total
    assert all(abs(s - total * n / sum(sizes)) <= 1 for s, n in zip(shares, sizes, strict=True))


@pytest.mark.parametrize("method", [UniformGrid, Downsample])
def test_a_share_of_the_prompt_holds_as_many_entries_as_an_evictor(method: type) -> None:
    layout = TokenLayout.stack(
        [row_layout([Grid(1, 12, 12)]), row_layout([Grid(1, 12, 12)], text=9)]
    )
    for kept in (0.2, 0.5):
        reduction = method(kept=kept, of="prompt").reduce(view_of(layout))
        for row in range(2):
            wanted = kept * int(layout.real[row].sum())
            slack = 0.5 if method is UniformGrid else 6
            assert abs(int(reduction.valid[row].sum()) - wanted) <= slack
    with pytest.raises(InvalidValueError, match="share of text"):
        method(kept=0.05, of="prompt").check_layout(layout)


def test_line_breaks_stay_with_their_rows_and_count() -> None:
    layout = pictured(Picture((Segment(Grid(1, 4, 4)), Segment(Grid(1, 6, 8), "rows"))))
    reduction = UniformGrid(kept=0.25).reduce(view_of(layout))
    after = layout.select(reduction.index, reduction.valid)
    assert int(after.vision.sum()) == round(0.25 * (16 + 6 * 9))
    fine = after.segment[0] == 1
    with_break = set(after.row[0, fine & (after.col[0] == 8)].tolist())
    assert set(after.row[0, fine].tolist()) == with_break


# ---------------------------------------------------------------- downsample


def test_a_quarter_is_the_mean_of_two_by_two() -> None:
    layout = row_layout([Grid(1, 4, 6)], system=1)
    view = view_of(layout)
    reduction = Downsample().reduce(view)
    merged = reduction.apply(view.hidden)[0]
    cells = view.hidden[0, 1:25].view(2, 2, 3, 2, -1)  # row, inside, column, inside
    assert_close(merged[1:7], cells.mean((1, 3)).flatten(0, 1))
    assert torch.equal(merged[7:], view.hidden[0, 25:])
    assert reduction.index[0].tolist() == [0, 1, 3, 5, 13, 15, 17, 25, 26, 27]


@pytest.mark.parametrize(
    ("rows", "cols", "share", "sides"),
    [
        (24, 24, Fraction(1, 4), (12, 12)),
        (24, 24, Fraction(1, 9), (8, 8)),
        (24, 24, Fraction(1, 5), (10, 11)),
        (5, 5, Fraction(1, 4), (2, 3)),
        (4, 6, Fraction(1), (4, 6)),
        (1, 9, Fraction(1, 3), (1, 5)),
        (3, 3, Fraction(1, 100), (1, 1)),
    ],
)
def test_sides_shrink_alike_to_the_nearest_number_of_blocks(
    rows: int, cols: int, share: Fraction, sides: tuple[int, int]
) -> None:
    table = blocks(share, Grid(1, rows, cols), False)[0]
    assert len(table[:, 0].unique()) == sides[0]
    assert len(table[0, :cols].unique()) == sides[1]
    sizes = table[:, :cols].flatten().bincount()
    assert len(sizes[sizes > 0]) == sides[0] * sides[1]


def test_line_breaks_count_among_what_sides_shrink_to() -> None:
    # A third of 2 x 6 slots is 4: one row of three columns and a break.
    table = blocks(Fraction(1, 3), Grid(1, 2, 5), True)[0]
    assert len(table[:, 0].unique()) == 1
    assert len(table[0, :5].unique()) == 3


def test_a_band_of_rows_keeps_one_line_break_and_frames_stay_apart() -> None:
    layout = pictured(
        Picture((Segment(Grid(1, 4, 4)), Segment(Grid(1, 4, 6), "rows"))),
        Picture((Segment(Grid(2, 4, 4), "end"),)),
    )
    reduction = Downsample().reduce(view_of(layout))
    after = layout.select(reduction.index, reduction.valid)
    counts = [int((after.segment == n).sum()) for n in range(3)]
    assert counts == [4, 2 * 3 + 2, 2 * 4 + 1]
    # In order: a band's cells, then its break.
    assert after.col[0, after.segment[0] == 1].tolist() == [0, 2, 4, 6, 0, 2, 4, 6]
    assert after.frame[0, after.segment[0] == 2].tolist() == [0] * 4 + [1] * 5


@pytest.mark.parametrize("method", [UniformGrid(kept=0.4), Downsample(kept=0.4)], ids=str)
def test_rows_of_a_batch_are_treated_as_alone(method: UniformGrid | Downsample) -> None:
    layouts = [
        row_layout([Grid(1, 5, 7)]),
        row_layout([Grid(1, 3, 4), Grid(2, 4, 4)], text=8),
    ]
    together = method.reduce(view_of(TokenLayout.stack(layouts)))
    for row, layout in enumerate(layouts):
        alone = method.reduce(view_of(layout))
        shift = together.old_length - layout.length
        assert torch.equal(together.index[row, together.valid[row]] - shift, alone.index[0])


def test_everything_is_kept_at_a_share_of_one() -> None:
    view = view_of(row_layout([Grid(1, 5, 7), Grid(2, 3, 3)]))
    assert UniformGrid(kept=1.0).reduce(view).is_identity
    assert Downsample(kept=1.0).reduce(view).is_identity
    with pytest.raises(InvalidValueError, match="kept"):
        UniformGrid(kept=0.0).check(None)  # type: ignore[arg-type]
