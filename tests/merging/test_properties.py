"""What holds for every merge, whatever the prompt."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.merging import LightKV
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout, row_of

grids = st.lists(
    st.builds(Grid, st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=2
)
methods = st.builds(
    LightKV,
    layers=st.just((0,)),
    windows=st.tuples(st.integers(1, 4)),
    ratios=st.tuples(st.floats(0, 0.5)),
    guidance=st.sampled_from(["prompt", "uniform", "size", "random"]),
    normalise=st.sampled_from(["keys", "queries"]),
    masked=st.booleans(),
    partition=st.sampled_from(["true-grid", "square", "global"]),
)


@given(st.lists(grids, min_size=1, max_size=3), methods, st.integers(0, 99))
@settings(max_examples=80)
def test_a_merge_is_a_weighted_assignment(
    rows: list[list[Grid]], method: LightKV, seed: int
) -> None:
    layout = TokenLayout.stack([row_layout(row) for row in rows])
    view = random_view(layout, seed=seed)
    pairs = method.pairs(view)
    reduction = method.reduce(view)
    matrix = reduction.matrix()
    assert (matrix >= 0).all()
    sums = matrix.sum(-1)
    assert_close(sums[reduction.valid], torch.ones_like(sums[reduction.valid]))
    after = layout.select(reduction.index, reduction.valid)
    for b in range(len(rows)):
        kept = reduction.index[b, after.real[b]]
        assert (kept[1:] > kept[:-1]).all()
        merged = int((pairs.source // layout.length == b).sum())
        left = int(after.real[b].sum())
        assert left == int(layout.real[b].sum()) - merged
        assert torch.equal(after.position[b, after.real[b]], layout.position[b, kept])
    assert int(after.text.sum()) == int(layout.text.sum())
    if method.ratios == (0.0,):
        assert reduction.is_identity


@given(st.lists(grids, min_size=2, max_size=3), methods, st.integers(0, 99))
@settings(max_examples=60)
def test_a_row_of_a_batch_merges_as_it_would_alone(
    rows: list[list[Grid]], method: LightKV, seed: int
) -> None:
    view = random_view(TokenLayout.stack([row_layout(row) for row in rows]), seed=seed, width=12)
    reduction = method.reduce(view)
    batch = reduction.apply(view.hidden)
    after = view.layout.select(reduction.index, reduction.valid)
    for b in range(len(rows)):
        alone = row_of(view, b)
        single = method.reduce(alone)
        expected = single.apply(alone.hidden)[0]
        assert_close(batch[b][after.real[b]], expected)
        assert torch.equal(
            after.position[b][after.real[b]], alone.layout.position[0][single.index[0]]
        )


@given(grids, methods, st.integers(0, 99))
@settings(max_examples=40)
def test_merging_identical_tokens_changes_only_their_number(
    row: list[Grid], method: LightKV, seed: int
) -> None:
    layout = row_layout(row)
    view = random_view(layout, seed=seed)
    hidden = torch.where(layout.vision[..., None], view.hidden[0, layout.vision[0]][0], view.hidden)
    same = random_view(layout, seed=seed, hidden=hidden)
    reduction = method.reduce(same)
    assert_close(reduction.apply(hidden), reduction.take(hidden))
    assert int(reduction.sizes().sum()) == layout.length


@given(grids, st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=30)
def test_guidance_never_changes_who_merges(row: list[Grid], windows: int, seed: int) -> None:
    view = random_view(row_layout(row), seed=seed)
    targets = [
        LightKV((0,), (windows,), (0.5,), guidance=guidance).reduce(view).target
        for guidance in ("prompt", "uniform", "size", "random")
    ]
    assert all(torch.equal(targets[0], target) for target in targets[1:])
