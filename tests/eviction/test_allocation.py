"""Clipping, redistribution and rounding of budgets."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkv.eviction.parts.allocation import allot, fill, round_to_sum
from tests.closeness import assert_close


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def wholes(*rows):
    return torch.tensor(rows, dtype=torch.int64)


@st.composite
def problems(draw):
    layers = draw(st.integers(1, 8))
    lengths = draw(st.lists(st.integers(1, 60), min_size=layers, max_size=layers))
    floors = [draw(st.integers(0, length)) for length in lengths]
    wishes = [draw(st.one_of(st.just(0.0), st.floats(0, 150))) for _ in lengths]
    return doubles(wishes), wholes(floors), wholes(lengths)


@given(problems(), st.booleans(), st.sampled_from(["proportional", "even"]))
@settings(max_examples=100, deadline=None)
def test_budgets_are_possible_and_sum_to_the_total(problem, redistribute, spread):
    wishes, floors, lengths = problem
    allocation = allot(wishes, floors, lengths, redistribute, spread)
    assert (allocation.entries >= floors).all()
    assert (allocation.entries <= lengths).all()
    total = float(wishes.sum())
    if redistribute:
        expected = min(max(round(total), int(floors.sum())), int(lengths.sum()))
        assert abs(int(allocation.entries.sum()) - expected) <= (total % 1 == 0.5)
    else:
        inside = (wishes > floors) & (wishes < lengths)
        assert ((allocation.entries - wishes).abs()[inside] <= 0.5).all()


@given(problems())
@settings(max_examples=40, deadline=None)
def test_each_row_of_a_batch_is_allotted_alone(problem):
    wishes, floors, lengths = problem
    alone = allot(wishes, floors, lengths, True)
    other = torch.full_like(wishes, 7.3)
    batch = allot(
        torch.cat([other, wishes]),
        torch.cat([torch.zeros_like(floors), floors]),
        torch.cat([torch.full_like(lengths, 50), lengths]),
        True,
    )
    assert torch.equal(batch.entries[1], alone.entries[0])


def test_what_one_layer_cannot_hold_goes_to_the_others_in_proportion():
    filled = fill(
        doubles([80.0, 20.0, 10.0]), doubles([0, 0, 0]), doubles([50, 50, 50]), "proportional"
    )
    assert_close(filled, doubles([50.0, 40.0, 20.0]))


def test_what_protection_takes_is_paid_by_the_others():
    filled = fill(
        doubles([1.0, 20.0, 20.0]), doubles([5, 5, 5]), doubles([50, 50, 50]), "proportional"
    )
    assert_close(filled, doubles([5.0, 18.0, 18.0]))


def test_even_spread_gives_every_layer_the_same_more():
    # CAKE, worked example: cap 12, total 30.
    allocation = allot(
        doubles([15.0, 9.0, 6.0]), wholes([0, 0, 0]), wholes([12, 12, 12]), True, "even"
    )
    assert allocation.entries.tolist() == [[12, 11, 7]]


def test_even_spread_is_not_proportional():
    problem = doubles([24.0, 10.0, 2.0]), wholes([0, 0, 0]), wholes([20, 20, 20]), True
    assert allot(*problem, "even").entries.tolist() == [[20, 12, 4]]
    assert allot(*problem, "proportional").entries.tolist() == [[20, 13, 3]]


def test_a_layer_that_wants_nothing_takes_what_nobody_else_can():
    allocation = allot(doubles([20.0, 0.0]), wholes([0, 0]), wholes([10, 30]), True)
    assert allocation.entries.tolist() == [[10, 10]]


def test_without_redistribution_clipped_entries_are_lost():
    allocation = allot(doubles([80.0, 1.0]), wholes([5, 5]), wholes([50, 50]), False)
    assert allocation.entries.tolist() == [[50, 5]]
    assert allocation.requested.tolist() == [[80.0, 1.0]]


def test_requested_shows_the_wish_where_protection_alone_exceeds_it():
    allocation = allot(doubles([2.0, 2.0]), wholes([5, 5]), wholes([50, 50]), True)
    assert allocation.entries.tolist() == [[5, 5]]
    assert allocation.requested.tolist() == [[2.0, 2.0]]


def test_a_layer_that_wishes_more_gets_nothing_where_protection_takes_all():
    allocation = allot(doubles([13.0, 1.0]), wholes([12, 12]), wholes([50, 50]), True)
    assert allocation.entries.tolist() == [[12, 12]]
    assert allocation.requested.tolist() == [[7.0, 7.0]]
    allocation = allot(doubles([18.0, 42.0]), wholes([0, 0]), wholes([20, 20]), True)
    assert allocation.entries.tolist() == [[20, 20]]
    assert allocation.requested.tolist() == [[30.0, 30.0]]


@given(problems(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_layers_keep_what_is_requested_of_them_between_their_ends(problem, redistribute):
    wishes, floors, lengths = problem
    allocation = allot(wishes, floors, lengths, redistribute)
    assert_close(allocation.requested.sum(1), wishes.sum(1))
    within = allocation.requested.clamp(floors, lengths)
    assert ((allocation.entries - within).abs() < 1 + 1e-3).all()


def test_requested_is_what_was_redistributed_up_to_the_last_entry_that_there_is():
    full = allot(doubles([30.0, 10.0]), wholes([0, 0]), wholes([20, 20]), True)
    assert full.requested.tolist() == [[20.0, 20.0]]
    least = allot(doubles([2.0, 8.0]), wholes([5, 5]), wholes([50, 50]), True)
    assert_close(least.requested, doubles([5.0, 5.0]))
    # Each row of a batch by its own lengths.
    wishes, lengths = doubles([30.0, 30.0], [30.0, 30.0]), wholes([10, 10], [100, 100])
    both = allot(wishes, torch.zeros_like(lengths), lengths, True)
    assert both.requested.tolist() == [[30.0, 30.0], [30.0, 30.0]]
    assert both.entries.tolist() == [[10, 10], [30, 30]]


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_largest_remainder_rounding(values):
    rounded = round_to_sum(doubles(values))[0]
    assert ((rounded - doubles(values)[0]).abs() < 1 + 1e-6).all()
    assert abs(int(rounded.sum()) - sum(values)) <= 0.5 + 1e-6


def test_equal_remainders_go_to_the_lower_layer():
    assert round_to_sum(doubles([2.5, 2.5, 2.5, 2.5])).tolist() == [[3, 3, 2, 2]]


def test_sums_of_shares_do_not_lose_an_entry_to_rounding_noise():
    shares = doubles([0.1] * 10) * 3 * 10
    assert round_to_sum(shares).tolist() == [[3] * 10]
