"""Attention blocks, columns, rows and maps.

Rows are queries, columns keys; A is a layer's causal softmax attention after prefill. "Text" is the
text after the image, as in TGV-KV; "system" is every other text token. Blocks are named query kind
first: TV is text queries x vision keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from analysis.probing.quantities.base import (
    KINDS,
    Heads,
    LayerQuantity,
    Need,
    Reading,
    kind_mask,
    nan_outside,
    register,
)

BLOCKS: Final = {
    "TV": ("text", "vision"),
    "TT": ("text", "text"),
    "VV": ("vision", "vision"),
    "VT": ("vision", "text"),
    "TS": ("text", "system"),
    "VS": ("vision", "system"),
}
"""Attention blocks: (kind of the queries, kind of the keys)."""


@dataclass(frozen=True)
class AttentionQuantity(LayerQuantity):
    """A quantity that reads attention; (head, ...) where heads are kept apart."""

    needs: ClassVar[Need] = "attention"
    units: ClassVar[str] = "attention"
    own_dims: ClassVar[tuple[str, ...]] = ()

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return self.own_dims if heads == "mean" else ("head", *self.own_dims)


@register
@dataclass(frozen=True)
class BlockSum(AttentionQuantity):
    """Attention mass of each block; TV is the layer strength of TGV-KV's budgets (Eq. 5)."""

    name: ClassVar[str] = "block_sum"
    definition: ClassVar[str] = "S_XY = sum of A[i, j] over queries i in X and keys j in Y"
    own_dims: ClassVar[tuple[str, ...]] = ("block",)

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"block": list(BLOCKS)}

    def measure(self, reading: Reading) -> Tensor:
        sums = [
            (reading.columns(rows) * reading.mask(keys)[:, None]).sum(-1)
            for rows, keys in BLOCKS.values()
        ]
        return reading.drop_heads(torch.stack(sums, -1))


@register
@dataclass(frozen=True)
class BlockMean(BlockSum):
    """Mean attention of a block over its causal pairs: what a map shows as brightness."""

    name: ClassVar[str] = "block_mean"
    definition: ClassVar[str] = (
        "S_XY divided by the number of pairs (i, j) with i in X, j in Y and j <= i; NaN if none"
    )

    def measure(self, reading: Reading) -> Tensor:
        pairs = []
        for rows, keys in BLOCKS.values():
            earlier = reading.mask(keys).long().cumsum(1)
            pairs.append((earlier * reading.mask(rows)).sum(1))
        count = torch.stack(pairs, -1)
        count = count if reading.heads == "mean" else count[:, None]
        return nan_outside(super().measure(reading) / count, count > 0)


@register
@dataclass(frozen=True)
class ColumnSum(AttentionQuantity):
    """Attention that each token collects as a key, by the kind of the queries."""

    name: ClassVar[str] = "column_sum"
    definition: ClassVar[str] = "c_X[j] = sum of A[i, j] over queries i in X"
    own_dims: ClassVar[tuple[str, ...]] = ("source", "key")

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"source": [*KINDS, "all"]}

    def measure(self, reading: Reading) -> Tensor:
        columns = [reading.columns(source) for source in (*KINDS, "all")]
        return reading.drop_heads(torch.stack(columns, 2))


@register
@dataclass(frozen=True)
class AccumulatedAttention(AttentionQuantity):
    """Attention that each token collects from all queries: what H2O ranks by (TGV-KV, Fig. 1 c)."""

    name: ClassVar[str] = "accumulated_attention"
    definition: ClassVar[str] = "c[j] = sum of A[i, j] over all queries i"
    own_dims: ClassVar[tuple[str, ...]] = ("key",)

    def measure(self, reading: Reading) -> Tensor:
        return reading.drop_heads(reading.columns("all"))


@register
@dataclass(frozen=True)
class AttentionEntropy(AttentionQuantity):
    """Shannon entropy of each query's attention row; 0 looks at one token only."""

    name: ClassVar[str] = "attention_entropy"
    units: ClassVar[str] = "nats"
    definition: ClassVar[str] = "H[i] = -sum over keys j of A[i, j] log A[i, j]"
    own_dims: ClassVar[tuple[str, ...]] = ("query",)

    def measure(self, reading: Reading) -> Tensor:
        layout, attention = reading.layout, reading.attention
        heads = attention.heads if reading.heads == "all" else 1
        shape = (layout.batch_size, heads, layout.length)
        entropy = torch.full(shape, torch.nan, device=attention.device)
        for index, valid in attention.blocks(layout.real):
            rows = torch.special.entr(reading.probabilities(index)).sum(-1)
            rows = nan_outside(rows, valid[:, None])
            # Slots that pad a block belong to padding tokens and stay NaN.
            entropy.scatter_(2, index[:, None].expand_as(rows), rows)
        return reading.drop_heads(entropy)


@register
@dataclass(frozen=True)
class AttentionMap(AttentionQuantity):
    """The full map, N x N numbers per layer (and head): ask for few layers."""

    name: ClassVar[str] = "attention_map"
    definition: ClassVar[str] = "A[i, j]: softmax over keys j <= i of the scaled logits"
    own_dims: ClassVar[tuple[str, ...]] = ("query", "key")

    def measure(self, reading: Reading) -> Tensor:
        return reading.drop_heads(_rows(reading, reading.layout.real))


@register
@dataclass(frozen=True)
class TextAttentionMap(AttentionQuantity):
    """Rows of the text queries only; other rows are NaN."""

    name: ClassVar[str] = "text_attention_map"
    definition: ClassVar[str] = "A[i, j] for queries i of the text after the image"
    own_dims: ClassVar[tuple[str, ...]] = ("query", "key")

    def measure(self, reading: Reading) -> Tensor:
        return reading.drop_heads(_rows(reading, reading.layout.question))


def _rows(reading: Reading, queries: Tensor) -> Tensor:
    """(B, H or 1, N, N): marked rows of the map, NaN elsewhere."""
    attention, length = reading.attention, reading.layout.length
    heads = attention.heads if reading.heads == "all" else 1
    shape = (attention.batch_size, heads, length, length)
    full = torch.full(shape, torch.nan, device=attention.device)
    for index, valid in attention.blocks(queries):
        rows = nan_outside(reading.probabilities(index), valid[:, None, :, None])
        full.scatter_(2, index[:, None, :, None].expand_as(rows), rows)  # (B, H, T, N)
    return full


@register
@dataclass(frozen=True)
class TextWeight(AttentionQuantity):
    """Weights of dominant text tokens (TGV-KV, Eq. 7), normalised to sum to 1."""

    name: ClassVar[str] = "text_weight"
    units: ClassVar[str] = "1"
    definition: ClassVar[str] = (
        "w[j] = sum over text queries i >= j of A[i, j] / (number of them), divided by its sum"
    )
    own_dims: ClassVar[tuple[str, ...]] = ("key",)

    def measure(self, reading: Reading) -> Tensor:
        text = kind_mask(reading.layout, "text")
        return reading.drop_heads(nan_outside(_text_weight(reading, text), text[:, None]))


@register
@dataclass(frozen=True)
class TextWeightedScore(AttentionQuantity):
    """What TGV-KV ranks entries by: Eq. 8 for vision, Eq. 9 for text; NaN for system text."""

    name: ClassVar[str] = "twr_score"
    definition: ClassVar[str] = (
        "vision: sum over text queries i of w[i] A[i, j]; text: sum over text queries of A[i, j]"
    )
    own_dims: ClassVar[tuple[str, ...]] = ("key",)

    def measure(self, reading: Reading) -> Tensor:
        layout, attention = reading.layout, reading.attention
        text = layout.question
        weight = _text_weight(reading, text)
        score = torch.zeros_like(reading.columns("text"))
        for index, valid in attention.blocks(text):
            rows = reading.probabilities(index) * valid[:, None, :, None]
            # (B, H, T) weights times rows (B, H, T, N): a score (B, H, N)
            picked = weight.gather(2, index[:, None].expand(-1, weight.shape[1], -1))
            score += (picked[:, :, None] @ rows)[:, :, 0]
        score = torch.where(layout.vision[:, None], score, reading.columns("text"))
        return reading.drop_heads(nan_outside(score, (layout.vision | text)[:, None]))


def _text_weight(reading: Reading, text: Tensor) -> Tensor:
    """(B, H or 1, N): normalised weights of Eq. 7, zero outside the text."""
    later = text.flip(1).long().cumsum(1).flip(1).clamp_min(1)
    weight = reading.columns("text") / later[:, None] * text[:, None]
    return weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
