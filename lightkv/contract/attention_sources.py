"""Where attention comes from: projected queries and keys, some of the queries, or full matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.host import consecutive
from lightkv.contract.marked import Picked
from lightkv.contract.products import half_is_asked, half_product


class ProjectedAttention(Attention):
    """Attention recomputed from rotated queries and keys.

    Args:
        queries: (B, H, N, d), after rotary embedding.
        keys: (B, H_kv, N, d), after rotary embedding; H is a multiple of H_kv.
        scaling: Factor of the logits.
        mask: The layer's own mask: (B or 1, 1 or H, N, N) bool (True = attend) or additive float,
            or None for plain causal attention.
    """

    def __init__(
        self, queries: Tensor, keys: Tensor, scaling: float, mask: Tensor | None = None
    ) -> None:
        self.queries = queries
        self.keys = keys
        self.scaling = scaling
        self.mask = mask
        self.batch_size, self.heads = queries.shape[:2]
        self.length = keys.shape[2]
        self.group = self.heads // keys.shape[1]
        self.device = queries.device

    def of_heads(self, heads: slice) -> ProjectedAttention:
        shared = slice(heads.start // self.group, heads.stop // self.group)
        queries, keys = self.queries[:, heads], self.keys[:, shared]
        return ProjectedAttention(queries, keys, self.scaling, self._mask_of(heads))

    def pick_heads(self, heads: Sequence[int]) -> ProjectedAttention:
        shared = [head // self.group for head in heads]
        queries, keys = self.queries[:, list(heads)], self.keys[:, shared]
        return ProjectedAttention(queries, keys, self.scaling, self._mask_of(list(heads)))

    def _mask_of(self, heads: slice | list[int]) -> Tensor | None:
        """The mask of some heads; most masks are those of all."""
        if self.mask is None or self.mask.shape[1] == 1:
            return self.mask
        return self.mask[:, heads]

    def of_queries(self, picked: Picked) -> PickedAttention:
        """The attention of some queries, without holding the others."""
        mask = None if self.mask is None else picked.rows(self.mask)
        queries = picked.rows(self.queries)
        return PickedAttention(queries, self.keys, self.scaling, mask, picked.place)

    @cached_property
    def _wide_keys(self) -> Tensor:
        return self.keys.float()

    def logits(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        batch, count = index.shape
        kv_heads, width = self.keys.shape[1], self.queries.shape[3]
        rows = consecutive(batch, self.device)[:, None]
        # (B, H, N, d) at (B, T) of N: (B, H, T, d)
        picked = self.queries.transpose(1, 2)[rows, self._place(index)].transpose(1, 2)
        half = half_is_asked(self.keys)
        keys = self.keys if half else self._wide_keys
        if columns is not None:
            # (B, H_kv, N, d) at (B, C) of N: (B, H_kv, C, d)
            keys = keys.gather(2, columns[:, None, :, None].expand(-1, kv_heads, -1, width))
        if half:
            grouped = picked.reshape(batch, kv_heads, -1, width)
            product = half_product(grouped, keys, self.scaling)
        else:
            grouped = (picked.float() * self.scaling).reshape(batch, kv_heads, -1, width)
            product = grouped @ keys.transpose(-1, -2)
        return product.view(batch, self.heads, count, keys.shape[2])

    def probabilities(self, index: Tensor) -> Tensor:
        scores = self.logits(index)
        if self.mask is None:
            later = torch.arange(self.length, device=self.device) > index[..., None]
            return torch.softmax(scores.masked_fill_(later[:, None], -torch.inf), -1)
        mask = self.mask.expand(index.shape[0], *self.mask.shape[1:])
        where = self._place(index)[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
        rows = mask.gather(2, where)[..., : self.length]
        if rows.dtype != torch.bool:
            return torch.softmax(scores + rows.float(), -1)
        # A padding query sees nothing; its row is defined as zero.
        scores = scores.masked_fill(~rows, torch.finfo(torch.float32).min)
        return torch.softmax(scores, -1) * rows

    def _place(self, index: Tensor) -> Tensor:
        """Where the queries at ``index`` (B, T) stand in :attr:`queries` and :attr:`mask`."""
        return index


class PickedAttention(ProjectedAttention):
    """Attention of some queries: those of one layer, or of several layers one after the other.

    Args:
        queries: (B, H, T, d).
        keys: (B, H_kv, N, d).
        scaling: Factor of the logits.
        mask: Rows (B, 1, T, N) of the layer's own mask, or None for plain causal attention.
        place: (B, N) int64, number of each query among the T.
    """

    def __init__(
        self, queries: Tensor, keys: Tensor, scaling: float, mask: Tensor | None, place: Tensor
    ) -> None:
        super().__init__(queries, keys, scaling, mask)
        self.place = place

    def of_heads(self, heads: slice) -> PickedAttention:
        part = super().of_heads(heads)
        return PickedAttention(part.queries, part.keys, self.scaling, self.mask, self.place)

    @classmethod
    def stacked(cls, parts: Sequence[PickedAttention]) -> PickedAttention:
        """Several layers as one, their rows one after the other; all have a mask, or none."""
        if len(parts) == 1:
            return parts[0]
        masks = [one.mask for one in parts if one.mask is not None]
        # n layers of (B, H, T, d) become (n B, H, T, d), and so on
        return cls(
            torch.cat([one.queries for one in parts]),
            torch.cat([one.keys for one in parts]),
            parts[0].scaling,
            torch.cat(masks) if masks else None,
            parts[0].place.repeat(len(parts), 1),
        )

    @property
    def layers_at_once(self) -> int:
        """How many such layers fit into one block."""
        numbers = self.batch_size * self.heads * self.queries.shape[2] * self.length
        return max(1, self._most // max(1, numbers))

    def _place(self, index: Tensor) -> Tensor:
        return self.place.gather(1, index)


class GivenAttention(Attention):
    """Attention given as full matrices, for reference cases and small examples.

    Args:
        attention: (B, H, N, N) probabilities after the causal softmax, or None.
        raw: (B, H, N, N) logits before mask and softmax, or None.
        group: Heads that share a KV head.
    """

    def __init__(
        self, attention: Tensor | None = None, raw: Tensor | None = None, group: int = 1
    ) -> None:
        full = attention if attention is not None else raw
        if full is None:
            raise ValueError("give attention, raw logits, or both")
        self._attention = attention
        self._raw = raw
        self.batch_size, self.heads, self.length = full.shape[:3]
        self.group = group
        self.device = full.device

    def of_heads(self, heads: slice) -> GivenAttention:
        return self._of(heads)

    def pick_heads(self, heads: Sequence[int]) -> GivenAttention:
        return self._of(list(heads))

    def _of(self, heads: slice | list[int]) -> GivenAttention:
        attention, raw = self._attention, self._raw
        return GivenAttention(
            None if attention is None else attention[:, heads],
            None if raw is None else raw[:, heads],
            self.group,
        )

    def logits(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        if self._raw is None:
            raise ValueError("this attention was given without logits")
        rows = self._pick(self._raw, index)
        if columns is None:
            return rows
        return rows.gather(3, columns[:, None, None].expand(*rows.shape[:3], -1))  # (B, H, T, C)

    def probabilities(self, index: Tensor) -> Tensor:
        if self._attention is not None:
            return self._pick(self._attention, index)
        later = torch.arange(self.length, device=self.device) > index[..., None]
        return torch.softmax(self.logits(index).masked_fill(later[:, None], -torch.inf), -1)

    def _pick(self, full: Tensor, index: Tensor) -> Tensor:
        where = index[:, None, :, None].expand(-1, self.heads, -1, self.length)  # (B, H, T, N)
        return full.gather(2, where)


def newest_attention(queries: Tensor, keys: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Attention (B, H, T, K) float32 of the T newest queries over a layer's cache.

    Args:
        queries: (B, H, T, d), after rotary embedding.
        keys: (B, H_kv, K, d), the newest included.
        scaling: Factor of the logits.
        mask: (B or 1, heads or 1, T, K), boolean or additive, or None.
    """
    batch, heads, count, width = queries.shape
    kv_heads = keys.shape[1]
    # Query heads of a key head as more rows of it: (B, H_kv, H / H_kv T, d)
    grouped = queries.float().reshape(batch, kv_heads, -1, width)
    scores = (grouped @ keys.float().transpose(-1, -2)).view(batch, heads, count, -1) * scaling
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(torch.float32).min)
    elif mask is not None:
        scores = scores + mask.float()
    return torch.softmax(scores, -1)
