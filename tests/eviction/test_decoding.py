"""Decode policies, driven step by step without a model."""

import numpy as np
import pytest
import torch

from lightkv.contract.decoding import DecodeView, Grow, HeldCounts, Leaving
from lightkv.errors import InvalidValueError
from lightkv.eviction.parts.decoding import EvictOne, FixedSlot, HoldBudget, surplus


def view_of(positions, seen, attention=None, score=None, ratio=None, tail=None, kept=None):
    """One row, one group."""

    def row(values):
        return None if values is None else torch.tensor([[values]])

    return DecodeView(
        layer=0,
        position=row(positions),
        valid=torch.ones(1, 1, len(positions), dtype=torch.bool),
        seen=torch.tensor([seen]),
        budget_ratio=None if ratio is None else torch.tensor([ratio]),
        tail=None if tail is None else torch.tensor([tail]),
        attention=row(attention),
        score=row(score),
        kept=None if kept is None else torch.tensor([[kept]]),
    )


def gone(policy, view):
    """Positions that the policy drops from a view of one row."""
    dropped = policy.evict(view)
    return [] if dropped is None else view.position[dropped].tolist()


def test_grow_never_evicts():
    assert Grow().static
    assert not Grow().needs_attention
    assert gone(Grow(), view_of([0, 1, 2], 3)) == []


def test_evict_one_drops_the_least_attended_between_sinks_and_tail():
    attention = [0.0, 0.0, 0.0, 0.0, 0.3, 0.1, 0.2, 0.0, 0.0]
    view = view_of([0, 1, 2, 3, 9, 12, 15, 18, 20], 21, attention, ratio=0.3, tail=2)
    assert gone(EvictOne(), view) == [12]


def test_evict_one_drops_one_entry_however_large_the_surplus():
    view = view_of(list(range(10)), 10, [0.1] * 10, ratio=0.1, tail=1)
    assert surplus(HeldCounts.of(view)).tolist() == [[9.0]]
    assert gone(EvictOne(), view) == [4]  # the first on ties


def test_evict_one_waits_for_a_whole_entry():
    view = view_of(list(range(10)), 19, [0.1] * 10, ratio=0.5, tail=1)
    assert surplus(HeldCounts.of(view)).tolist() == [[0.0]]
    assert gone(EvictOne(), view) == []


def test_surplus_is_counted_in_float32():
    # 90 x (1 - 0.9) is just above 9 in float32, so ten entries are no surplus of one.
    ratio = float(1 - torch.tensor(0.9))
    held = HeldCounts.of(view_of(list(range(10)), 90, ratio=ratio))
    assert surplus(held).dtype == np.float32
    assert surplus(held).tolist() == [[0.0]]


def test_evict_one_without_candidates_does_nothing():
    view = view_of([0, 1, 2, 3, 4, 5], 60, [0.1] * 6, ratio=0.1, tail=3)
    assert gone(EvictOne(), view) == []


def test_a_share_that_is_not_a_number_never_evicts():
    view = view_of(list(range(10)), 11, [0.1] * 10, ratio=float("nan"), tail=1)
    assert gone(EvictOne(), view) == []


def test_fixed_slot_lengths_of_the_prefixkv_example():
    # Ten tokens, share .5, five kept; lengths after steps 1 to 5 are 6, 6, 7, 7, 8.
    held, lengths = [0, 2, 4, 6, 9], []
    for step in range(1, 6):
        held = [*held, 9 + step]
        view = view_of(held, 10 + step, ratio=0.5, kept=5)
        dropped = gone(FixedSlot(), view)
        assert dropped in ([], [held[len(held) // 2]])
        held = [position for position in held if position not in dropped]
        lengths.append(len(held))
    assert lengths == [6, 6, 7, 7, 8]


def test_fixed_slot_lies_before_the_end_of_what_prefill_kept():
    view = view_of(list(range(0, 64, 2)), 33, ratio=0.5, kept=30)
    assert gone(FixedSlot(25), view) == [10]


def test_streaming_example():
    policy = HoldBudget("oldest", protect_first=4)
    assert not policy.needs_attention
    assert gone(policy, view_of([0, 1, 2, 3, 7, 8, 9, 10], 11, kept=7)) == [7]


def test_h2o_example():
    # Scores collected so far, the newest row (.3, .05, .15, .2, .3) included.
    score = [3.1, 1.25, 0.40, 0.25, 0.30]
    policy = HoldBudget("score", protect_first=0, recent=2)
    assert gone(policy, view_of([0, 1, 4, 5, 6], 7, score=score, kept=4)) == [4]
    half = HoldBudget("score", protect_first=0, recent_share=0.5)
    assert gone(half, view_of([0, 1, 4, 5, 6], 7, score=score, kept=4)) == [4]


def test_hold_budget_by_current_attention():
    policy = HoldBudget("attention", protect_first=1, recent=2)
    view = view_of([0, 3, 5, 8, 9], 10, attention=[0.0, 0.3, 0.2, 0.0, 0.0], kept=4)
    assert gone(policy, view) == [5]


def test_attention_may_be_pooled_before_the_recent_entries():
    view = view_of([0, 1, 2, 3, 4, 5], 6, attention=[0.9, 0.1, 0.5, 0.2, 0.0, 0.0], kept=5)
    assert gone(HoldBudget("attention", protect_first=1, recent=2), view) == [1]
    # Of (.9, .1, .5, .2), pooled over three: .333, .5, .267, .233; the first one is protected.
    pooled = HoldBudget("attention", protect_first=1, recent=2, kernel=3)
    assert gone(pooled, view) == [3]


def test_a_turn_of_several_tokens_drops_as_many():
    policy = HoldBudget("oldest", protect_first=1)
    assert gone(policy, view_of([0, 3, 4, 5, 6, 7, 8], 9, kept=4)) == [3, 4, 5]
    assert gone(policy, view_of([0, 3, 4, 5], 9, kept=4)) == []


def test_capacity_lets_a_short_cache_grow_and_cuts_a_long_one():
    policy = HoldBudget("oldest", protect_first=1, capacity=5)
    assert gone(policy, view_of([0, 1, 2], 3)) == []
    assert gone(policy, view_of([0, 1, 2, 3, 4], 5)) == []
    assert gone(policy, view_of([0, 1, 2, 3, 4, 5, 6], 7)) == [1, 2]


def test_rows_and_heads_of_different_lengths():
    valid = torch.tensor([[[False, False, True, True, True, True], [True] * 6]])
    position = torch.tensor([[[-1, -1, 0, 1, 2, 6], [0, 1, 2, 3, 5, 6]]])
    view = DecodeView(
        layer=0,
        position=position,
        valid=valid,
        seen=torch.tensor([7]),
        kept=torch.tensor([[3, 5]]),
    )
    dropped = HoldBudget("oldest", protect_first=1).evict(view)
    assert position[dropped].tolist() == [1, 1]
    assert view.slots[0, 0].tolist() == [-1, -1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("first", "stop", "counts", "leaving"),
    [
        (1, 4, 2, [[1, 2], [2, 3]]),  # the smallest of slots 1 to 3
        (1, 99, 9, [[1, 2, 3], [1, 2, 3, 4]]),  # no more than there are
        (-3, 1, 1, [[0], [0]]),
        (3, 3, 1, [[], []]),  # nobody may leave
        (9, 12, 1, [[], []]),
    ],
)
def test_whoever_leaves_is_in_the_run_of_slots(first, stop, counts, leaving):
    valid = torch.tensor([[[False, True, True, True, True], [True] * 5]])
    value = torch.tensor([[[0.0, 9.0, 1.0, 2.0, 3.0], [0.1, 0.9, 0.2, 0.2, 0.3]]])
    held = HeldCounts(layer=0, lengths=np.array([[4, 5]]), seen=np.array([9]))
    counts = np.full((1, 2), counts)
    leaving_slots = Leaving.between(held, counts, first, np.full((1, 2), stop), "score")
    mask = leaving_slots.marked(valid, value)
    slots = (valid.cumsum(-1) - 1)[0]
    assert [slots[group][mask[0, group]].tolist() for group in (0, 1)] == leaving
    assert leaving_slots.counts.tolist() == [[len(group) for group in leaving]]


def test_of_equal_values_the_lowest_slot_leaves():
    held = HeldCounts(layer=0, lengths=np.array([[4]]), seen=np.array([4]))
    leaving_slots = Leaving.between(held, np.array([[2]]), 1, np.array([[4]]), "score")
    mask = leaving_slots.marked(torch.ones(1, 1, 4, dtype=torch.bool), torch.zeros(1, 1, 4))
    assert mask.tolist() == [[[False, True, True, False]]]


@pytest.mark.parametrize("name", ["budget_ratio", "tail", "attention", "score", "kept"])
def test_what_is_missing_is_named(name):
    with pytest.raises(RuntimeError, match=name):
        view_of([0, 1], 2).read(name)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (lambda: EvictOne(-1), "protect_first"),
        (lambda: FixedSlot(-1), "distance"),
        (lambda: HoldBudget("newest"), "victim"),
        (lambda: HoldBudget(protect_first=-1), "protect_first"),
        (lambda: HoldBudget(recent=-1), "recent"),
        (lambda: HoldBudget(recent_share=2.0), "recent_share"),
        (lambda: HoldBudget(capacity=0), "capacity"),
        (lambda: HoldBudget(kernel=2), "kernel"),
        (lambda: HoldBudget(kernel=-1), "kernel"),
        (lambda: HoldBudget("oldest", kernel=3), "kernel"),
    ],
)
def test_values_out_of_range_are_named(policy, name):
    with pytest.raises(InvalidValueError) as error:
        policy().check()
    assert error.value.name == name
