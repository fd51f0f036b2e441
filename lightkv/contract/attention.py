"""Attention of chosen query rows, recomputed from queries and keys in blocks.

The forward pass keeps its fused kernel on every layer.  What a method needs of the attention map
is a few query rows (the text, an observation window) or a reduction over all of them; both are
computed here in float32, a block of rows and heads at a time, so that no N x N map of a layer is
ever held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.marked import Marked
from lightkv.contract.reduction import compact

# Numbers held by one block, over batch, heads, rows and keys: 2^24 float32 are 64 MiB. A processor
# works several times faster on blocks that stay in its cache.
BLOCK_NUMBERS = 2**24
BLOCK_NUMBERS_CPU = 2**20

Normalisation = Literal["keys", "queries"]


@dataclass(frozen=True)
class Rows:
    """Attention rows of some queries, mean over heads.

    Attributes:
        attention: (B, T, N) float32, zero in invalid rows.
        index: (B, T) int64, positions of the queries, ascending where valid.
        valid: (B, T) bool; rows of the batch with fewer queries are left-padded.
    """

    attention: Tensor
    index: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Tile:
    """A block of rows of some heads.

    Attributes:
        attention: Attention of these heads alone.
        heads: Which of all heads they are.
        rows: Which of the marked queries the block holds.
        index: (B, T) int64, positions of these queries.
        valid: (B, T) bool.
        filled: True if the host knows that all are valid.
    """

    attention: Attention
    heads: slice
    rows: slice
    index: Tensor
    valid: Tensor
    filled: bool


class Attention(ABC):
    """Attention of one layer over a prompt: B rows, H heads, N positions.

    Subclasses give blocks of probabilities; everything else is derived from them.
    """

    batch_size: int
    heads: int
    group: int  # heads that share a KV head
    length: int
    device: torch.device
    _read: tuple[Tensor, Rows] | None = None

    @abstractmethod
    def of_heads(self, heads: slice) -> Attention:
        """The attention of some heads; both ends are multiples of ``group``."""

    @abstractmethod
    def pick_heads(self, heads: Sequence[int]) -> Attention:
        """The attention of any heads, in that order."""

    @abstractmethod
    def probabilities(self, index: Tensor) -> Tensor:
        """Causal attention (B, H, T, N) float32 of the queries at ``index`` (B, T)."""

    @abstractmethod
    def logits(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """Scaled logits float32 of the queries at ``index``, before any mask.

        Args:
            index: (B, T) int64.
            columns: (B, K) int64, the keys wanted; default all.

        Returns:
            (B, H, T, K), or (B, H, T, N) for all keys.
        """

    def blocks(
        self, queries: Tensor | Marked, keys: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut marked queries into blocks (index (B, T), valid (B, T)).

        Args:
            queries: (B, N) bool, or the marked positions.
            keys: Keys that a row is computed for; default all N.
        """
        marked = Marked.of(queries)
        for rows in self._cut(marked.index.shape[1], keys):
            yield marked.index[:, rows], marked.valid[:, rows]

    def tiles(self, queries: Tensor | Marked) -> Iterator[Tile]:
        """Cut queries, marked as in :meth:`blocks`, into blocks that hold many rows of few heads.

        A product of few rows with all keys takes up to twice as long per number as one of
        hundreds, so heads are cut first and rows only if one KV head's are still too many.
        """
        marked = Marked.of(queries)
        index, valid = marked.index, marked.valid
        group = self.batch_size * self.group * max(1, index.shape[1]) * self.length
        step = self.group * max(1, self._most // max(1, group))
        for start in range(0, self.heads, step):
            heads = slice(start, min(start + step, self.heads))
            part = self if step >= self.heads else self.of_heads(heads)
            for rows in part._cut(index.shape[1]):
                yield Tile(part, heads, rows, index[:, rows], valid[:, rows], marked.filled)

    @property
    def _most(self) -> int:
        return BLOCK_NUMBERS_CPU if self.device.type == "cpu" else BLOCK_NUMBERS

    def _cut(self, count: int, keys: int | None = None) -> Iterator[slice]:
        """Cut ``count`` rows into blocks of all heads."""
        row = self.batch_size * self.heads * (self.length if keys is None else keys)
        size = max(1, self._most // max(1, row))
        for start in range(0, count, size):
            yield slice(start, start + size)

    def rows(self, queries: Tensor) -> Rows:
        """Head-mean attention of the marked queries.

        The last result is kept: asking again with the very same mask returns the same object.

        Args:
            queries: (B, N) bool. Few of them: the result is (B, T, N).
        """
        if self._read is not None and self._read[0] is queries:
            return self._read[1]
        index, valid = compact(queries)
        total = torch.zeros(*index.shape, self.length, device=self.device)
        for tile in self.tiles(queries):
            total[:, tile.rows] += tile.attention.probabilities(tile.index).sum(1)
        rows = Rows(total.div_(self.heads) * valid[..., None], index, valid)
        self._read = queries, rows
        return rows

    def column_sums(self, queries: Tensor, *, per_head: bool = False) -> Tensor:
        """Attention that each key collects from the marked queries.

        Args:
            queries: (B, N) bool.
            per_head: Keep the head dimension instead of its mean.

        Returns:
            (B, N), or (B, H, N) per head, float32.
        """
        total = torch.zeros(self.batch_size, self.heads, self.length, device=self.device)
        for tile in self.tiles(queries):
            block = tile.attention.probabilities(tile.index)
            total[:, tile.heads] += block.mul_(tile.valid[:, None, :, None]).sum(2)
        return total if per_head else total.mean(1)

    def block_sum(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Sum (B,) of the head-mean attention from marked queries to marked keys."""
        return (self.column_sums(queries) * keys).sum(1)

    def prompt_mass(
        self,
        queries: Tensor | Marked,
        keys: Tensor | Marked,
        *,
        normalise: Normalisation = "keys",
        masked: bool = False,
        real: Tensor | None = None,
    ) -> Tensor:
        """Attention mass between marked queries and marked keys, summed over heads.

        LightKV Eq. 7: importance of each vision query from its attention to the prompt keys,
        on the logits before the causal mask.

        Args:
            queries: The tokens to weigh, marked as in :meth:`blocks`.
            keys: The prompt, likewise; all of it is in ``real``.
            normalise: "keys" is the softmax of Eq. 2 over all keys of a query; "queries" is the
                released code's softmax over all queries of a key.
            masked: Apply the causal mask first.
            real: (B, N) bool, tokens that take part in the normaliser; default all.

        Returns:
            (B, N) float32 (float64 where the logits are), zero outside ``queries``.
        """
        queries, keys = Marked.of(queries), Marked.of(keys)
        if normalise == "queries":
            return self._mass_over_queries(queries, keys, real, masked)
        hidden = None if real is None else ~real[:, None, None, :]
        mass = torch.zeros(self.batch_size, self.length, device=self.device)
        for tile in self.tiles(queries):
            scores = tile.attention.logits(tile.index)
            if hidden is not None:
                scores = scores.masked_fill_(hidden, -torch.inf)
            if masked:
                later = torch.arange(self.length, device=self.device) > tile.index[..., None]
                scores = scores.masked_fill_(later[:, None], -torch.inf)
            where = keys.index[:, None, None].expand(*scores.shape[:3], -1)
            # The normaliser runs over all keys; of the shares only those of the prompt are read.
            shares = torch.softmax(scores, -1).gather(3, where)
            share = _held(shares, keys.valid[:, None, None], keys.filled).sum((1, 3))
            # A padding query may see no key at all; its share is not a number.
            share = _held(share, tile.valid, tile.filled)
            mass = mass.to(share.dtype).scatter_add_(1, tile.index, share)
        return mass

    def _mass_over_queries(
        self, queries: Marked, keys: Marked, real: Tensor | None, masked: bool
    ) -> Tensor:
        # Only the columns of the prompt count. Two passes over blocks of query rows: largest logit
        # and normaliser of each key, then the shares. Kept apart, the two lose less to rounding
        # than their log-sum-exp does.
        columns = keys.index
        everyone = (
            Marked.everywhere(self.batch_size, self.length, self.device)
            if real is None
            else Marked.of(real)
        )
        start = torch.zeros(self.batch_size, self.heads, columns.shape[1], device=self.device)
        top, total = torch.full_like(start, torch.finfo(start.dtype).min), start
        for index, valid in self.blocks(everyone, columns.shape[1]):
            scores = self._prompt_logits(index, columns, masked)
            if not everyone.filled:
                scores = scores.masked_fill_(~valid[:, None, :, None], -torch.inf)
            higher = torch.maximum(top.to(scores.dtype), scores.amax(2))
            total = total * (top - higher).exp() + (scores - higher[:, :, None]).exp().sum(2)
            top = higher
        mass = torch.zeros(self.batch_size, self.length, device=self.device)
        for index, valid in self.blocks(queries, columns.shape[1]):
            scores = self._prompt_logits(index, columns, masked)
            shares = (scores - top[:, :, None]).exp() / total[:, :, None]
            share = _held(shares, keys.valid[:, None, None], keys.filled).sum((1, 3))
            share = _held(share, valid, queries.filled)
            mass = mass.to(share.dtype).scatter_add_(1, index, share)
        return mass

    def _prompt_logits(self, index: Tensor, columns: Tensor, masked: bool) -> Tensor:
        scores = self.logits(index, columns)
        if masked:
            later = columns[:, None, None, :] > index[:, None, :, None]
            scores = scores.masked_fill_(later, -torch.inf)
        return scores


def _held(values: Tensor, valid: Tensor, filled: bool) -> Tensor:
    """Values of valid slots, zero in others."""
    return values if filled else torch.where(valid, values, 0)
