"""Attention recomputed in blocks: cutting heads and rows changes nothing."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from lightkv.contract import attention as module
from lightkv.contract import attention_sources
from lightkv.contract.attention import Attention
from lightkv.contract.attention_sources import GivenAttention, ProjectedAttention, newest_attention
from lightkv.contract.products import half_products
from lightkv.errors import UnsupportedError
from tests.closeness import assert_close

BATCH, HEADS, KV_HEADS, LENGTH, WIDTH = 2, 6, 2, 13, 4


def projected() -> ProjectedAttention:
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=draw)
    keys = torch.randn(BATCH, KV_HEADS, LENGTH, WIDTH, generator=draw)
    return ProjectedAttention(queries, keys, WIDTH**-0.5)


def held_rows() -> GivenAttention:
    every = torch.arange(LENGTH).expand(BATCH, -1)
    return GivenAttention(projected().probabilities(every), projected().logits(every))


def marked(first: int, last: int) -> torch.Tensor:
    """The second row marks fewer tokens than the first."""
    slots = torch.arange(LENGTH)
    return torch.stack([(slots >= first) & (slots < last), (slots > first) & (slots < last)])


# One row of one KV head, a few rows of it, both KV heads in one block.
@pytest.mark.parametrize("numbers", [1, 400, 10_000])
@pytest.mark.parametrize("attention", [projected(), held_rows()], ids=["projected", "given"])
def test_results_do_not_depend_on_blocks(
    attention: Attention, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", numbers)
    queries = marked(1, 9)
    every = torch.arange(LENGTH).expand(BATCH, -1)
    dense = projected().probabilities(every) * queries[:, None, :, None]
    assert_close(attention.column_sums(queries, per_head=True), dense.sum(2))
    assert_close(attention.column_sums(queries), dense.mean(1).sum(1))
    rows = attention.rows(queries)
    expected = dense.mean(1).gather(1, rows.index[..., None].expand(-1, -1, LENGTH))
    assert_close(rows.attention, expected * rows.valid[..., None])


@pytest.mark.parametrize("numbers", [1, 400, 10_000])
@pytest.mark.parametrize("normalise", ["keys", "queries"])
@pytest.mark.parametrize("masked", [False, True])
def test_prompt_mass_is_the_dense_sum(
    normalise: Literal["keys", "queries"],
    masked: bool,
    numbers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", numbers)
    queries, keys = marked(1, 9), marked(7, LENGTH)
    logits = projected().logits(torch.arange(LENGTH).expand(BATCH, -1))
    if masked:
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    shares = torch.softmax(logits, -1 if normalise == "keys" else 2)
    expected = (shares * keys[:, None, None]).sum((1, 3)) * queries
    mass = projected().prompt_mass(queries, keys, normalise=normalise, masked=masked)
    assert_close(mass, expected)


def masks() -> dict[str, torch.Tensor]:
    """Causal masks as layers have them; the first tokens of the second row are padding."""
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    padded = causal.expand(BATCH, 1, -1, -1).clone()
    padded[1, :, :3] = padded[1, :, :, :3] = False
    window = causal & torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(-4)
    wider = torch.nn.functional.pad(padded, (0, 5), value=True)
    additive = torch.zeros(BATCH, 1, LENGTH, LENGTH).masked_fill(~padded, -1e30)
    return {"padded": padded, "window": window[None, None], "wider": wider, "additive": additive}


@pytest.mark.parametrize("kind", masks())
def test_a_layers_own_mask_is_applied(kind: str) -> None:
    mask = masks()[kind]
    plain = projected()
    masked = ProjectedAttention(plain.queries, plain.keys, plain.scaling, mask)
    every = torch.arange(LENGTH).expand(BATCH, -1)
    seen = mask[..., :LENGTH] if mask.dtype == torch.bool else mask == 0
    expected = torch.zeros(BATCH, HEADS, LENGTH, LENGTH)
    for row in range(BATCH):
        for head in range(HEADS):
            keys = plain.keys[row, head // (HEADS // KV_HEADS)]
            for query in range(LENGTH):
                keep = seen[row % len(seen), 0, query]
                logits = plain.queries[row, head, query] @ keys.T * plain.scaling
                if keep.any():
                    expected[row, head, query, keep] = torch.softmax(logits[keep], -1)
    index = torch.tensor([[3, 7, 12], [4, 5, 11]])
    for part, queries in ((every, slice(None)), (index, None)):
        probabilities = masked.probabilities(part)
        if queries is None:
            rows = torch.stack([expected[row][:, part[row]] for row in range(BATCH)])
            assert_close(probabilities, rows)
        elif kind != "additive":
            # A padding query sees nothing; an additive mask leaves its row to the softmax.
            assert_close(probabilities, expected)


def test_padding_takes_no_part_in_the_normaliser() -> None:
    logits = projected().logits(torch.arange(LENGTH).expand(BATCH, -1))
    real = marked(0, LENGTH)
    queries, keys = marked(1, 9), marked(7, LENGTH)
    for normalise, axis in (("keys", 3), ("queries", 2)):
        padding = ~real[:, None, None] if axis == 3 else ~real[:, None, :, None]
        shares = torch.softmax(logits.masked_fill(padding, -torch.inf), axis)
        expected = (shares * keys[:, None, None]).sum((1, 3)) * queries
        mass = projected().prompt_mass(queries, keys, normalise=normalise, real=real)
        assert_close(mass, expected)
        assert not torch.equal(mass, projected().prompt_mass(queries, keys, normalise=normalise))


@pytest.mark.parametrize("normalise", ["keys", "queries"])
def test_mass_keeps_the_precision_of_its_logits(normalise: Literal["keys", "queries"]) -> None:
    logits = held_rows().logits(torch.arange(LENGTH).expand(BATCH, -1)).double()
    queries, keys = marked(1, 9), marked(7, LENGTH)
    shares = torch.softmax(logits, -1 if normalise == "keys" else 2)
    expected = (shares * keys[:, None, None]).sum((1, 3)) * queries
    assert_close(
        GivenAttention(raw=logits).prompt_mass(queries, keys, normalise=normalise), expected
    )


@pytest.mark.parametrize("numbers", [1, 60, 160, 400, 10_000])
def test_a_block_holds_no_more_than_it_may(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS_CPU", numbers)
    queries = marked(1, 9)
    whole, group = projected(), HEADS // KV_HEADS
    once = torch.zeros(BATCH, HEADS, LENGTH)
    for tile in whole.tiles(queries):
        size = BATCH * tile.attention.heads * tile.index.shape[1] * LENGTH
        assert size <= numbers or (tile.index.shape[1] == 1 and tile.attention.heads == group)
        assert torch.equal(
            tile.attention.probabilities(tile.index), whole.probabilities(tile.index)[:, tile.heads]
        )
        for row in range(BATCH):
            once[row, tile.heads, tile.index[row, tile.valid[row]]] += 1
    assert torch.equal(once, queries[:, None].expand_as(once).float())
    for keys in (None, 4):
        seen = torch.zeros(BATCH, LENGTH)
        for index, valid in whole.blocks(queries, keys):
            size = BATCH * HEADS * index.shape[1] * (keys or LENGTH)
            assert size <= numbers or index.shape[1] == 1
            more = BATCH * HEADS * (index.shape[1] + 1) * (keys or LENGTH)
            assert more > numbers or index.shape[1] == 8 or index[0, -1] == 8
            for row in range(BATCH):
                seen[row, index[row, valid[row]]] += 1
        assert torch.equal(seen, queries.float())


@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
def test_the_newest_queries_over_a_cache(mask: str) -> None:
    draw = torch.Generator().manual_seed(1)
    queries = torch.randn(BATCH, HEADS, 2, WIDTH, generator=draw)
    keys = torch.randn(BATCH, KV_HEADS, 5, WIDTH, generator=draw)
    seen = torch.rand(BATCH, 1, 2, 5, generator=draw) > 0.3
    seen[..., -1] = True
    given_mask = {
        "none": None,
        "boolean": seen,
        "additive": torch.zeros(seen.shape).masked_fill(~seen, -1e30),
    }[mask]
    newest = newest_attention(queries, keys, 0.7, given_mask)
    for row in range(BATCH):
        for head in range(HEADS):
            logits = queries[row, head] @ keys[row, head // (HEADS // KV_HEADS)].T * 0.7
            if mask != "none":
                logits = logits.masked_fill(~seen[row, 0], -torch.inf)
            assert_close(newest[row, head], torch.softmax(logits, -1))


@pytest.mark.parametrize("attention", [projected(), held_rows()], ids=["projected", "given"])
def test_rows_that_were_asked_for_last_are_kept(attention: Attention) -> None:
    queries = marked(1, 9)
    rows = attention.rows(queries)
    assert attention.rows(queries) is rows
    others = attention.rows(marked(2, 5))
    assert others.index.shape == (BATCH, 3)
    assert attention.rows(queries) is not rows
    assert torch.equal(attention.rows(queries).attention, rows.attention)


def test_some_heads_of_attention_given_as_matrices() -> None:
    index = torch.tensor([[0, 12], [3, 4]])
    for part, heads in (
        (held_rows().of_heads(slice(2, 4)), [2, 3]),
        (held_rows().pick_heads([5, 0]), [5, 0]),
    ):
        assert torch.equal(part.logits(index), held_rows().logits(index)[:, heads])
        assert torch.equal(part.probabilities(index), held_rows().probabilities(index)[:, heads])


def test_attention_given_without_a_part_says_so() -> None:
    with pytest.raises(ValueError, match="give attention, raw logits, or both"):
        GivenAttention()
    only = GivenAttention(attention=torch.eye(3)[None, None])
    with pytest.raises(ValueError, match="without logits"):
        only.logits(torch.zeros(1, 1, dtype=torch.int64))
    assert only.of_heads(slice(0, 1)).heads == 1
    causal = GivenAttention(raw=torch.zeros(1, 1, 3, 3)).probabilities(torch.tensor([[0, 2]]))
    assert_close(causal[0, 0], torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]))
    assert_close(
        held_rows().block_sum(marked(1, 9), marked(0, 4)),
        (held_rows().column_sums(marked(1, 9)) * marked(0, 4)).sum(1),
    )


def test_products_in_half_precision_are_those_of_wide_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = projected()
    attention = ProjectedAttention(wide.queries.bfloat16(), wide.keys.bfloat16(), 0.3)
    index, columns = torch.tensor([[0, 12], [3, 4]]), torch.tensor([[1, 2, 7], [0, 3, 8]])
    with half_products(), pytest.raises(UnsupportedError, match="bfloat16 on cpu"):
        attention.logits(index)
    asked: list[torch.dtype] = []

    def widening(
        left: torch.Tensor, right: torch.Tensor, *, out_dtype: torch.dtype
    ) -> torch.Tensor:
        asked.extend((left.dtype, right.dtype))
        return left.to(out_dtype) @ right.to(out_dtype)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "bmm", widening)
        patched.setattr(attention_sources, "half_is_asked", lambda keys: True)
        half = attention.logits(index), attention.logits(index, columns)
    assert set(asked) == {torch.bfloat16}
    assert_close(half[0], attention.logits(index))
    assert_close(half[1], attention.logits(index, columns))
