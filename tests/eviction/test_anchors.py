"""Merging evicted entries into kept ones: published examples, and what every merge must keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkv.catalogue import method
from lightkv.contract.retention import Retention
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.methods.elasticcache import NearestAnchor, SortedIndexAsRank, nearest_anchor
from lightkv.eviction.methods.look_m import PivotMerge, RecentAndText
from lightkv.eviction.parts.protection import protected
from lightkv.eviction.parts.selections import ByScore
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, layout_of

SCORES = torch.tensor([[3, 0.2, 0.9, 0.1, 0.3, 0.8, 0.05, 0.1]])
TEXT = "svvvvvvt"


def merged_values(keep, merge, layout, guard, keys=None, values=None):
    """Values after the merge; by default entry t has the value t."""
    retention = Retention.from_keep(
        keep,
        torch.zeros(len(keep)),
        merge=merge.merge(keep[:, None] if keep.dim() == 2 else keep, layout, guard, keys),
    )
    if values is None:
        values = torch.arange(float(layout.length))[None, None, :, None]
    return retention.apply(values)


def test_elastic_cache_paper_example():
    layout = layout_of(TEXT)
    guard = protected(layout, 0, 0)
    keep = ByScore().keep(SCORES, layout, torch.tensor([4]), guard)
    assert keep[0].nonzero()[:, 0].tolist() == [0, 2, 4, 5]
    values = merged_values(keep, NearestAnchor(), layout, guard)
    assert values.flatten().tolist() == [0.5, 2.5, 4.0, 6.0]


def test_elastic_cache_intended_example():
    layout = layout_of(TEXT)
    guard = protected(layout, 1, 1)
    keep = ByScore().keep(SCORES, layout, torch.tensor([4]), guard)
    values = merged_values(keep, NearestAnchor(spare_protected=True), layout, guard)
    assert values.flatten().tolist() == [0.0, 2.0, 5.0, 7.0]


def test_elastic_cache_released_example():
    layout = layout_of(TEXT)
    guard = protected(layout, 1, 1)
    keep = SortedIndexAsRank().keep(SCORES, layout, torch.tensor([4]), guard)
    merge = NearestAnchor(spare_protected=True, lost_offset=1)
    values = merged_values(keep, merge, layout, guard)
    assert_close(values.flatten(), torch.tensor([0.0, 8 / 3, 7.0]))


def test_nearest_anchor_takes_the_lower_on_ties():
    anchors = torch.tensor([[[0, 0, 1, 0, 0, 0, 1, 0], [0] * 8]]).bool()
    assert nearest_anchor(anchors)[0, 0].tolist() == [2, 2, 2, 2, 2, 6, 6, 6]
    assert nearest_anchor(anchors)[0, 1].tolist() == [-1] * 8


LOOK_M_KEYS = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.9, 0.1]]]])


def test_look_m_pivot_example():
    layout = layout_of("ttvv")
    keep = torch.tensor([[[True, True, False, False]]])
    guard = protected(layout, 0, 0)
    keys = merged_values(keep, PivotMerge(), layout, guard, LOOK_M_KEYS, LOOK_M_KEYS)
    expected = torch.tensor([[[[0.95, 0.35 / 3], [0.0, 1.0]]]])
    assert_close(keys, expected)
    values = torch.tensor([[[[6.0], [1.0], [0.0], [12.0]]]])
    # Values go where their keys go: (6 + (6 + 0) / 2 + (6 + 12) / 2) / 3.
    merged = merged_values(keep, PivotMerge(), layout, guard, LOOK_M_KEYS, values)
    assert merged.flatten().tolist() == [6.0, 1.0]


def test_look_m_average():
    layout = layout_of("ttvv")
    keep = torch.tensor([[[True, True, False, False]]])
    guard = protected(layout, 0, 0)
    keys = merged_values(keep, PivotMerge("average"), layout, guard, LOOK_M_KEYS, LOOK_M_KEYS)
    assert_close(keys, torch.tensor([[[[0.9, 0.7 / 3], [0.0, 1.0]]]]))


def test_look_m_weighted_by_similarity():
    layout = layout_of("ttvv")
    keep = torch.tensor([[[True, True, False, False]]])
    guard = protected(layout, 0, 0)
    values = torch.tensor([[[[6.0], [1.0], [10.0], [20.0]]]])
    merged = merged_values(keep, PivotMerge("weighted"), layout, guard, LOOK_M_KEYS, values)
    # Cosines .8 and .9 / sqrt(.82) to the first key, and three entries in its slot.
    cosine = 0.9 / 0.82**0.5
    expected = [(6 + 0.8 * 10 + cosine * 20) / 3, 1.0]
    assert merged.flatten().tolist() == pytest.approx(expected, rel=1e-6)


LOOK_M_SCORES = torch.tensor([[2.0, 0.5, 0.9, 0.3, 0.6, 0.2, 0.4, 0.1]])


@pytest.mark.parametrize(
    ("budget", "share", "expected", "least"),
    [(3, 1 / 3, [0, 1, 6, 7], 4), (5, 0.2, [0, 1, 2, 6, 7], 4), (4, 1.0, [0, 1, 4, 5, 6, 7], 6)],
)
def test_look_m_as_published_keeps_all_text_and_the_recent(budget, share, expected, least):
    layout = layout_of("ttvvvvtt")
    rule, asked = RecentAndText(share=share), torch.tensor([budget])
    none = torch.zeros_like(layout.real)
    keep = rule.keep(LOOK_M_SCORES, layout, asked, none)
    assert keep[0].nonzero()[:, 0].tolist() == expected
    assert rule.least(layout, asked, none).tolist() == [least]
    assert rule.least(layout, asked, layout.real).tolist() == [8]
    per_head = rule.keep(LOOK_M_SCORES[:, None].expand(-1, 2, -1), layout, asked, none)
    assert per_head.shape == (1, 2, 8) and (per_head == keep[:, None]).all()


def test_look_m_within_its_budget_prefers_the_recent_to_text():
    rule = method("look-m", 0.5).selection
    layout = layout_of("tttvvvvv")
    none = torch.zeros_like(layout.real)
    keep = rule.keep(LOOK_M_SCORES, layout, torch.tensor([4]), none)
    assert keep[0].nonzero()[:, 0].tolist() == [0, 2, 6, 7]


MERGES = [
    NearestAnchor(),
    NearestAnchor(spare_protected=True),
    NearestAnchor(spare_protected=True, lost_offset=1),
    PivotMerge(),
    PivotMerge("average"),
]


@pytest.mark.parametrize("merge", MERGES, ids=repr)
@given(st.integers(0, 10**6), st.floats(0.1, 1))
@settings(max_examples=15, deadline=None)
def test_a_merge_keeps_what_stays_and_weighs_by_shares(merge, seed, share):
    rows = Rows(["svvvvt", "ssvvvvvvvvvttt"], seed=seed % 100)
    view = rows.views()[0]
    draw = torch.Generator().manual_seed(seed)
    guard = protected(view.layout, 1, 1)
    keep = (torch.rand(2, 2, view.layout.length, generator=draw) < share) & view.layout.real[
        :, None
    ]
    keep = keep | guard[:, None]
    reduction = merge.merge(keep, view.layout, guard, view.keys)
    retention = Retention.from_keep(keep, torch.zeros(2), merge=reduction)
    assert torch.equal(reduction.index.view(retention.index.shape), retention.index)
    assert torch.equal(reduction.valid.view(retention.valid.shape), retention.valid)
    weights = reduction.matrix()
    assert (weights >= 0).all()
    assert_close(weights.sum(-1)[reduction.valid], torch.ones(int(keep.sum())))
    # Padding goes nowhere, and an entry to which nothing was added stays bit for bit.
    padding = ~view.layout.real[:, None].expand_as(keep).flatten(0, 1)
    assert (reduction.target[padding] == -1).all()
    merged, plain = retention.apply(view.values), Retention.from_keep(keep, torch.zeros(2))
    alone = (reduction.sizes() == 1).view(retention.index.shape) & retention.valid
    assert torch.equal(merged[alone], plain.apply(view.values)[alone])


@pytest.mark.parametrize("merge", MERGES, ids=repr)
def test_heads_that_share_their_entries_share_the_merge(merge):
    view = Rows(["ssvvvvvvvvvttt"]).views()[0]
    guard = protected(view.layout, 1, 1)
    keep = torch.zeros_like(guard)[:, None]
    keep[..., [0, 3, 7, 13]] = True
    reduction = merge.merge(keep, view.layout, guard, view.keys)
    retention = Retention.from_keep(keep, torch.zeros(1), merge=reduction)
    together = retention.apply(view.values)
    for head in range(2):
        expected = reduction.apply(view.values[:, head])
        assert_close(together[:, head], expected)


def test_likeness_does_not_depend_on_the_size_of_blocks(monkeypatch):
    view = Rows(["ssvvvvvvvvvttt", "svvtt"]).views()[0]
    guard = protected(view.layout, 1, 1)
    keep = guard[:, None].expand(-1, 2, -1)
    whole = PivotMerge().merge(keep, view.layout, guard, view.keys)
    monkeypatch.setattr("lightkv.eviction.methods.look_m.BLOCK_NUMBERS", 20)
    assert torch.equal(PivotMerge().merge(keep, view.layout, guard, view.keys).target, whole.target)


def test_pivot_needs_keys():
    layout = layout_of("svt")
    with pytest.raises(UnsupportedError, match="keys"):
        PivotMerge().merge(layout.real[:, None], layout, layout.real, None)


@pytest.mark.parametrize(
    ("merge", "name"),
    [(lambda: NearestAnchor(lost_offset=-1), "lost_offset"), (lambda: PivotMerge("sum"), "kind")],
)
def test_values_out_of_range_are_named(merge, name):
    with pytest.raises(InvalidValueError) as error:
        merge().check(FACTS)
    assert error.value.name == name
