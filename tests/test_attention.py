"""Attention recomputed in blocks: cutting heads and rows changes nothing."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from lightkv.contract import attention as module
from lightkv.contract.attention import Attention, GivenAttention, ProjectedAttention
from tests.closeness import assert_close

BATCH, HEADS, KV_HEADS, LENGTH, WIDTH = 2, 6, 2, 13, 4


def projected() -> ProjectedAttention:
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=draw)
    keys = torch.randn(BATCH, KV_HEADS, LENGTH, WIDTH, generator=draw)
    return ProjectedAttention(queries, keys, WIDTH**-0.5)


def given() -> GivenAttention:
    every = torch.arange(LENGTH).expand(BATCH, -1)
    return GivenAttention(projected().probabilities(every), projected().logits(every))


def marked(first: int, last: int) -> torch.Tensor:
    """The second row marks fewer tokens than the first."""
    slots = torch.arange(LENGTH)
    return torch.stack([(slots >= first) & (slots < last), (slots > first) & (slots < last)])


# One row of one KV head, a few rows of it, both KV heads in one block.
@pytest.mark.parametrize("numbers", [1, 400, 10_000])
@pytest.mark.parametrize("attention", [projected(), given()], ids=["projected", "given"])
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
    found = projected().prompt_mass(queries, keys, normalise=normalise, masked=masked)
    assert_close(found, expected)
