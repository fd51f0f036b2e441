"""Reductions against loops over tokens: what is merged, dropped, padded, composed."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightkv.contract.reduction import Reduction, Rule, compact
from tests.closeness import assert_close

WIDTH = 3


def test_compact_moves_marked_entries_to_the_right() -> None:
    keep = torch.tensor([[True, False, True, True], [False, True, False, False], [False] * 4])
    index, valid = compact(keep)
    assert valid.tolist() == [[True, True, True], [False, False, True], [False, False, False]]
    assert index[0].tolist() == [0, 2, 3] and index[1, 2] == 1
    none, nowhere = compact(torch.zeros(2, 3, dtype=torch.bool))
    assert none.shape == nowhere.shape == (2, 0) and none.dtype == torch.int64
    empty, _ = compact(torch.zeros(0, 3, dtype=torch.bool))
    assert empty.shape == (0, 0)
    told, there = compact(keep, np.array([3, 1, 0]))
    assert torch.equal(told, index) and torch.equal(there, valid)
    wide, spare = compact(keep, width=4)
    assert torch.equal(wide[:, 1:], index) and torch.equal(spare[:, 1:], valid)
    assert not spare[:, 0].any()
    deep, deeper = compact(keep.expand(2, 3, 4))
    assert torch.equal(deep, index.expand(2, 3, 3)) and torch.equal(deeper, valid.expand(2, 3, 3))


def test_the_identity() -> None:
    same = Reduction.identity(2, 3)
    assert same.is_identity and same.rule == "mean"
    assert same.index.tolist() == same.target.tolist() == [[0, 1, 2]] * 2
    assert same.valid.tolist() == [[True] * 3] * 2 and same.weight.tolist() == [[1.0] * 3] * 2
    assert (same.old_length, same.new_length) == (3, 3)
    assert not Reduction.from_keep(torch.tensor([[True, False, True]])).is_identity
    padded = Reduction.from_keep(torch.tensor([[False, True], [True, True]]))
    assert (
        padded.new_length == 2
        and not Reduction(
            torch.tensor([[1, 0]]), padded.valid[:1], padded.target[:1], padded.weight[:1]
        ).is_identity
    )


def test_pruning_keeps_tokens_as_they_are() -> None:
    keep = torch.tensor([[True, False, True, True], [False, True, False, False]])
    pruned = Reduction.from_keep(keep)
    values = torch.randn(2, 4, WIDTH)
    assert pruned.target.tolist() == [[0, -1, 1, 2], [-1, 2, -1, -1]]
    assert pruned.weight.tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]
    assert pruned.weight.dtype == torch.float32
    assert pruned.sizes().tolist() == [[1, 1, 1], [0, 0, 1]]
    out = pruned.apply(values)
    assert torch.equal(out[0], values[0, [0, 2, 3]]) and torch.equal(out[1, 2], values[1, 1])
    assert not out[1, :2].any()
    assert torch.equal(pruned.take(values)[0], values[0, [0, 2, 3]])
    assert torch.equal(pruned.take(values[..., 0])[1, 2:], values[1, 1:2, 0])


@st.composite
def groupings(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Representatives (B, N) with merged, lone and dropped tokens, and importances, some zero."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    representative = torch.full((batch, length), -1)
    for row in range(batch):
        stays = [n for n in range(length) if draw(st.booleans())]
        for token in range(length):
            if token in stays:
                representative[row, token] = token
            elif stays and draw(st.booleans()):
                representative[row, token] = draw(st.sampled_from(stays))
    seed = draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    importance = torch.rand(batch, length, generator=generator)
    importance = importance * (torch.rand(batch, length, generator=generator) > 0.4)
    return representative, importance, seed


def by_hand(
    representative: Tensor, importance: Tensor, values: Tensor, rule: Rule
) -> list[dict[int, tuple[list[float], Tensor]]]:
    """Per row and survivor: the weight of every old token, and the new value."""
    rows = []
    for row, weights, states in zip(representative, importance, values, strict=True):
        survivors: dict[int, tuple[list[float], Tensor]] = {}
        for head in [n for n, target in enumerate(row.tolist()) if target == n]:
            members = [n for n, target in enumerate(row.tolist()) if target == head]
            total = sum(float(weights[n]) for n in members)
            share = {n: float(weights[n]) / total if total else 1 / len(members) for n in members}
            mean = sum((share[n] * states[n] for n in members), torch.zeros(WIDTH).double())
            if rule == "norm-preserving" and len(members) > 1:
                mean = mean / mean.norm() * max(float(states[n].norm()) for n in members)
            survivors[head] = ([share.get(n, 0.0) for n in range(len(row))], mean)
        rows.append(survivors)
    return rows


@pytest.mark.parametrize("rule", ["mean", "norm-preserving"])
@given(groupings())
@settings(max_examples=120)
def test_merging_is_the_weighted_mean_of_each_group(
    rule: Rule, drawn: tuple[Tensor, Tensor, int]
) -> None:
    representative, importance, seed = drawn
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*representative.shape, WIDTH, generator=generator, dtype=torch.float64)
    merged = Reduction.from_groups(representative, importance.double(), rule)
    out, matrix, sizes = merged.apply(values), merged.matrix(), merged.sizes()
    assert merged.rule == rule and out.dtype == torch.float64
    assert merged.old_length == representative.shape[1]
    expected = by_hand(representative, importance.double(), values, rule)
    assert merged.new_length == max(map(len, expected))
    for row, heads in enumerate(expected):
        first = merged.new_length - len(heads)
        assert merged.valid[row].tolist() == [n >= first for n in range(merged.new_length)]
        assert not out[row, :first].any() and not matrix[row, :first].any()
        for slot, (head, (share, value)) in enumerate(heads.items(), first):
            members = (representative[row] == head).nonzero()[:, 0]
            assert merged.index[row, slot] == head and sizes[row, slot] == len(members)
            assert merged.target[row, members].tolist() == [slot] * len(members)
            assert_close(matrix[row, slot], share)
            assert_close(out[row, slot], value, scale=max(1.0, float(values.abs().max())))
            if len(members) == 1:
                assert torch.equal(out[row, slot], values[row, head])
        dropped = representative[row] < 0
        assert (merged.target[row, dropped] == -1).all() and not merged.weight[row, dropped].any()


def test_sums_run_in_float32_and_come_back_as_they_came() -> None:
    representative = torch.zeros(1, 4, dtype=torch.int64)
    values = torch.tensor([[[256.0], [1.0], [1.0], [1.0]]], dtype=torch.bfloat16)
    merged = Reduction.from_groups(representative, torch.ones(1, 4, dtype=torch.bfloat16))
    assert merged.weight.dtype == torch.float32
    out = merged.apply(values)
    assert out.dtype == torch.bfloat16 and float(out) == float(torch.tensor(64.75).bfloat16())
    rescaled = Reduction.from_groups(representative, torch.ones(1, 4), "norm-preserving")
    assert float(rescaled.apply(values)) == 256 and rescaled.apply(values).dtype == torch.bfloat16


def test_a_group_without_importance_is_averaged_evenly() -> None:
    merged = Reduction.from_groups(torch.tensor([[1, 1, 2]]), torch.zeros(1, 3))
    assert merged.weight.tolist() == [[0.5, 0.5, 1.0]]
    smallest = torch.finfo(torch.float32).tiny
    tiny = Reduction.from_groups(torch.tensor([[1, 1]]), torch.tensor([[smallest, 3 * smallest]]))
    assert_close(tiny.weight, torch.tensor([[0.25, 0.75]]))


def test_a_group_that_cancels_has_no_direction_to_rescale() -> None:
    merged = Reduction.from_groups(torch.tensor([[1, 1]]), torch.ones(1, 2), "norm-preserving")
    assert merged.apply(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])).tolist() == [[[0.0, 0.0]]]


@given(groupings(), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_one_after_another_is_the_product(
    drawn: tuple[Tensor, Tensor, int], chance: Random
) -> None:
    first = Reduction.from_groups(drawn[0], drawn[1].double())
    assume(first.new_length)
    joins = torch.full_like(first.index, -1)
    for row in range(len(joins)):
        present = first.valid[row].nonzero()[:, 0].tolist()
        stays = [slot for slot in present if chance.random() < 0.6]
        for slot in present:
            joins[row, slot] = slot if slot in stays else chance.choice([-1, *stays])
    weights = torch.rand(joins.shape, generator=torch.Generator().manual_seed(drawn[2]))
    second = Reduction.from_groups(joins, weights, "norm-preserving")
    both = first.then(second)
    assert both.weight.dtype == torch.float64 and both.rule == "norm-preserving"
    assert torch.equal(both.valid, second.valid)
    assert_close(both.matrix(), second.matrix().double() @ first.matrix(), scale=1)
    for row in range(len(joins)):
        picked = second.index[row, second.valid[row]]
        assert torch.equal(both.index[row, both.valid[row]], first.index[row, picked])
        for old, slot in enumerate(first.target[row].tolist()):
            expected = -1 if slot < 0 else int(second.target[row, slot])
            assert both.target[row, old] == expected
            assert expected >= 0 or both.weight[row, old] == 0


def test_who_goes_into_a_token_that_leaves_is_dropped_with_it() -> None:
    merged = Reduction.from_groups(torch.tensor([[1, 2, 2, -1, 4]]), torch.ones(1, 5))
    assert merged.target.tolist() == [[-1, 0, 0, -1, 1]]
    assert merged.weight.tolist() == [[0, 0.5, 0.5, 0, 1]]
    assert merged.slot.tolist() == [[2, 0, 0, 2, 1]]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_what_the_host_knows_changes_nothing(rows: int) -> None:
    representative = torch.tensor([[0, 0, 2, 2], [3, 1, 3, 3], [0, 1, 1, 3]])[:rows]
    importance = torch.tensor([[0.2, 0.3, 0.0, 0.0], [0.5, 0.1, 0.4, 0.1], [1, 2, 3, 4.0]])[:rows]
    plain = Reduction.from_groups(representative, importance)
    told = Reduction.from_groups(
        representative, importance, counts=np.array([2, 2, 3][:rows]), whole=True
    )
    assert told.whole and not plain.whole
    assert told.filled is plain.filled is (rows < 3)
    values = torch.randn(rows, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    for name in ("index", "valid", "target", "weight", "slot"):
        assert torch.equal(getattr(told, name), getattr(plain, name)), name
    assert torch.equal(told.apply(values), plain.apply(values))
    assert torch.equal(told.sizes(), plain.sizes())


def test_weights_too_small_for_a_normal_number_still_sum_to_one() -> None:
    smallest = torch.finfo(torch.float32).tiny / 2**10
    merged = Reduction.from_groups(torch.tensor([[1, 1, 2]]), torch.full((1, 3), smallest))
    assert merged.weight.tolist() == [[0.5, 0.5, 1.0]]


def test_rows_of_one_length_are_known_to_have_no_empty_slots() -> None:
    ragged = torch.tensor([[True, True, False], [True, False, False]])
    representative = torch.tensor([[0, 0, 2], [0, 0, 0]])
    for row in (slice(0, 1), slice(0, 2)):
        alone = row.stop == 1
        assert Reduction.from_keep(ragged[row]).filled is alone
        merged = Reduction.from_groups(representative[row], torch.ones(row.stop, 3))
        assert merged.filled is alone
        assert bool(merged.valid.all()) is alone
