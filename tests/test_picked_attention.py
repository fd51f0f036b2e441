"""Attention of some queries alone: the same numbers as attention that holds all of them."""

from __future__ import annotations

import math

import pytest
import torch

from lightkv.contract import attention as module
from lightkv.contract.attention_sources import PickedAttention, ProjectedAttention
from lightkv.contract.marked import Picked
from tests.closeness import assert_close

BATCH, HEADS, KV_HEADS, LENGTH, WIDTH = 2, 6, 3, 9, 4
SCALING = 0.3


def marks(*rows: str) -> torch.Tensor:
    """One row of the batch per word, ``x`` where a position is marked."""
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


# Rows, and the run they share: none where one of them has a hole, another start or another end.
RUNS = {
    "the same run": (("..xxx.", "..xxx."), slice(2, 5)),
    "one position": ((".x....",), slice(1, 2)),
    "from the first": (("xx....", "xx...."), slice(0, 2)),
    "up to the last, one is shorter": (("..xxxx", "....xx"), slice(2, 6)),
    "as long, elsewhere": (("..xx..", ".xx..."), None),
    "shorter, not up to the last": (("..xxx.", "...xx."), None),
    "a hole": (("..x.x.", "..x.x."), None),
    "a hole in one": (("..xxxx", "..x..x"), None),
    "none in one": (("....xx", "......"), None),
    "none": (("......", "......"), None),
}


@pytest.mark.parametrize("rows", [rows for rows, _ in RUNS.values()], ids=RUNS)
def test_marked_positions_are_found(rows: tuple[str, ...]) -> None:
    marked = marks(*rows)
    picked = Picked.of(marked)
    width = max(row.count("x") for row in rows)
    assert picked.index.shape == (len(rows), width)
    assert picked.place.shape == marked.shape
    for row, letters in enumerate(rows):
        places = [place for place, letter in enumerate(letters) if letter == "x"]
        start = width - len(places)
        assert picked.index[row, start:].tolist() == places
        for number, place in enumerate(places, start):
            assert picked.place[row, place] == number
        rest = [place for place in range(len(letters)) if place not in picked.index[row].tolist()]
        assert not picked.place[row, rest].any()


@pytest.mark.parametrize(("rows", "span"), RUNS.values(), ids=RUNS)
def test_a_run_that_all_rows_share_is_a_slice(rows: tuple[str, ...], span: slice | None) -> None:
    assert Picked.of(marks(*rows)).span == span


@pytest.mark.parametrize("rows", [rows for rows, _ in RUNS.values()], ids=RUNS)
@pytest.mark.parametrize("shared", [False, True], ids=["a batch", "one row for all"])
def test_rows_are_a_copy_of_the_marked_ones(rows: tuple[str, ...], shared: bool) -> None:
    marked = marks(*rows)
    values = torch.randn(1 if shared else len(rows), 3, marked.shape[1], 2)
    picked = Picked.of(marked)
    once = picked.rows(values)
    for row, letters in enumerate(rows):
        places = [place for place, letter in enumerate(letters) if letter == "x"]
        if places:
            source = values[0 if shared else row]
            assert torch.equal(
                once[0 if len(once) == 1 else row][:, -len(places) :], source[:, places]
            )
    before = values.clone()
    once.zero_()
    assert torch.equal(values, before)


def layer(seed: int, mask: str) -> ProjectedAttention:
    """Random queries and keys of a layer under a kind of mask."""
    draw = torch.Generator().manual_seed(seed)
    queries = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=draw)
    keys = torch.randn(BATCH, KV_HEADS, LENGTH, WIDTH, generator=draw)
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril() & torch.ones(
        LENGTH, LENGTH, dtype=torch.bool
    ).triu(seed - 5)
    masks = {
        "causal": None,
        "boolean": seen[None, None],
        "of each row": torch.stack([seen, seen.roll(1, 0).tril()])[:, None],
        "additive": torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~seen, -1e30),
    }
    return ProjectedAttention(queries, keys, SCALING, masks[mask])


def by_hand(full: ProjectedAttention, row: int, head: int, query: int) -> list[float]:
    """Attention of one query, number by number."""
    vector = full.queries[row, head, query].tolist()
    keys = full.keys[row, head * KV_HEADS // HEADS].tolist()
    seen = [key <= query for key in range(LENGTH)]
    if full.mask is not None:
        query_mask = full.mask[row % len(full.mask), 0, query]
        seen = (query_mask if query_mask.dtype == torch.bool else query_mask == 0).tolist()
    weights = [
        math.exp(SCALING * sum(a * b for a, b in zip(vector, key, strict=True))) if look else 0.0
        for key, look in zip(keys, seen, strict=True)
    ]
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


MASKS = ("causal", "boolean", "of each row", "additive")
MARKED = marks("..xxxx.x.", "...x....x")
RUN = marks("....xxxxx", "......xxx")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("marked", [MARKED, RUN], ids=["with holes", "a run"])
@pytest.mark.parametrize("numbers", [1, 200, 100_000])
def test_picked_queries_attend_as_before(
    mask: str, marked: torch.Tensor, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", numbers)
    full = layer(1, mask)
    part = full.of_queries(Picked.of(marked))
    sums = torch.zeros(BATCH, HEADS, LENGTH)
    for row in range(BATCH):
        for head in range(HEADS):
            for query in marked[row].nonzero()[:, 0].tolist():
                sums[row, head] += torch.tensor(by_hand(full, row, head, query))
    assert_close(part.column_sums(marked, per_head=True), sums)
    assert_close(part.of_heads(slice(2, 6)).column_sums(marked, per_head=True), sums[:, 2:6])
    rows = part.rows(marked)
    for row in range(BATCH):
        for number, query in enumerate(rows.index[row].tolist()):
            heads = [torch.tensor(by_hand(full, row, head, query)) for head in range(HEADS)]
            wanted = torch.stack(heads).mean(0) * rows.valid[row, number]
            assert_close(rows.attention[row, number], wanted, scale=1)


def test_logits_of_picked_queries_and_some_keys() -> None:
    full = layer(2, "causal")
    part = full.of_queries(Picked.of(MARKED))
    index = torch.tensor([[3, 7], [3, 8]])
    columns = torch.tensor([[0, 4, 5], [8, 1, 2]])
    assert torch.equal(part.logits(index), full.logits(index))
    assert torch.equal(part.logits(index, columns), full.logits(index, columns))
    assert part.queries.shape == (BATCH, HEADS, 5, WIDTH)


@pytest.mark.parametrize("mask", MASKS)
def test_layers_one_after_the_other(mask: str) -> None:
    picked = Picked.of(MARKED)
    parts = [layer(seed, mask).of_queries(picked) for seed in (1, 2, 3)]
    stacked = PickedAttention.stacked(parts)
    assert (stacked.batch_size, stacked.heads, stacked.length) == (3 * BATCH, HEADS, LENGTH)
    assert stacked.group == HEADS // KV_HEADS
    assert stacked.scaling == SCALING
    index, valid = picked.index.repeat(3, 1), MARKED.repeat(3, 1)
    one = [part.probabilities(picked.index) for part in parts]
    assert torch.equal(stacked.probabilities(index), torch.cat(one))
    sums = [part.column_sums(MARKED) for part in parts]
    assert_close(stacked.column_sums(valid), torch.cat(sums))
    assert PickedAttention.stacked(parts[:1]) is parts[0]


def test_how_many_layers_fit_into_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    part = layer(1, "causal").of_queries(Picked.of(MARKED))
    once = BATCH * HEADS * 5 * LENGTH
    for numbers, layers in ((1, 1), (2 * once - 1, 1), (2 * once, 2), (3 * once + 1, 3)):
        monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", numbers)
        assert part.layers_at_once == layers
    none = layer(1, "causal").of_queries(Picked.of(marks("." * LENGTH, "." * LENGTH)))
    assert none.layers_at_once == 3 * once + 1


def test_any_heads_in_any_order() -> None:
    full = layer(1, "of each row")
    index = torch.tensor([[3, 7], [3, 8]])
    every = full.probabilities(index)
    assert_close(full.pick_heads([5, 0, 2]).probabilities(index), every[:, [5, 0, 2]])
    per_head = torch.cat([layer(1, "boolean").mask, layer(3, "boolean").mask], 1)  # type: ignore[list-item]
    mask = per_head.repeat(1, HEADS // 2, 1, 1)
    masked = ProjectedAttention(full.queries, full.keys, SCALING, mask)
    for heads in (slice(2, 4), [3, 1]):
        part = masked.of_heads(heads) if isinstance(heads, slice) else masked.pick_heads(heads)
        assert_close(part.probabilities(index), masked.probabilities(index)[:, heads])
