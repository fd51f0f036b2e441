"""What evicted entries leave behind: merging their keys and values into kept ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.attention import BLOCK_NUMBERS
from lightkv.contract.compressor import ModelFacts
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.errors import InvalidValueError, UnsupportedError

PivotKind = Literal["pivot", "average"]


@dataclass(frozen=True)
class AnchorMerge(ABC):
    """Assigns every evicted entry to a kept one."""

    needs_keys: ClassVar[bool] = False

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    @abstractmethod
    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        """The merge of one layer.

        Args:
            keep: (B, G, N) bool, entries that stay.
            layout: Layout of the N entries.
            protected: (B, N) bool, kept for protection.
            keys: (B, H_kv, N, d) if :attr:`needs_keys`.

        Returns:
            A reduction of B * G rows that keeps exactly the entries that stay.
        """


@dataclass(frozen=True)
class NearestAnchor(AnchorMerge):
    """Average each evicted entry into the nearest kept one (ElasticCache, arXiv 2407.18121).

    Entries half way between two anchors go to the lower one; an anchor's new key and value are
    the plain mean of its bucket.

    Attributes:
        spare_protected: Protected entries stay as they are and receive nothing.
        lost_offset: Reproduce a bookkeeping error of the released code: the numbers of the evicted
            entries are too low by this many (the protected beginning), so an anchor may be merged
            into itself and the last evicted entries are lost. 0 for none. (There, a protected
            entry may also add to a bucket while staying as it is; here it only stays.)
    """

    spare_protected: bool = False
    lost_offset: int = 0

    def check(self, facts: ModelFacts) -> None:
        if self.lost_offset < 0:
            raise InvalidValueError("lost_offset", self.lost_offset, "at least 0")

    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        anchors = keep & ~protected[:, None] if self.spare_protected else keep
        evicted = layout.real[:, None] & ~keep
        if self.lost_offset:
            evicted = F.pad(evicted, (0, self.lost_offset))[..., self.lost_offset :]
        nearest = nearest_anchor(anchors)
        own = torch.arange(keep.shape[-1], device=keep.device)
        joins = evicted & ~keep & layout.real[:, None]
        target = torch.where(keep, own, torch.where(joins, nearest, -1))
        importance = 1 + (evicted & anchors).float()
        return Reduction.from_groups(target.flatten(0, 1), importance.flatten(0, 1))


def nearest_anchor(anchors: Tensor) -> Tensor:
    """Index (B, G, N) of the nearest marked entry, the lower one on ties; -1 if none is marked."""
    length = anchors.shape[-1]
    own = torch.arange(length, device=anchors.device)
    far = 2 * length  # farther than any entry
    before = torch.where(anchors, own, -far).cummax(-1).values
    after = torch.where(anchors, own, far).flip(-1).cummin(-1).values.flip(-1)
    nearest = torch.where(after - own < own - before, after, before)
    return torch.where(anchors.any(-1, keepdim=True), nearest, -1)


@dataclass(frozen=True)
class PivotMerge(AnchorMerge):
    """Merge each evicted entry into the kept one with the most similar key (LOOK-M, 2406.18139).

    Values follow their keys.

    Attributes:
        kind: "pivot": an evicted key is first averaged with its kept one. "average": plain mean.
    """

    kind: PivotKind = "pivot"
    needs_keys: ClassVar[bool] = True

    def check(self, facts: ModelFacts) -> None:
        if self.kind not in ("pivot", "average"):
            raise InvalidValueError("kind", self.kind, "'pivot' or 'average'")

    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        if keys is None:
            raise UnsupportedError(f"{type(self).__name__} needs the keys of the layer")
        batch, groups, length = keep.shape
        # Heads that share their entries are compared by their keys side by side.
        flat = keys.float().view(batch * groups, -1, length, keys.shape[3])
        flat = flat.transpose(1, 2).flatten(2)
        kept = keep.flatten(0, 1)
        target = most_similar(F.normalize(flat, dim=-1), kept)
        evicted = (layout.real[:, None] & ~keep).flatten(0, 1)
        target = torch.where(kept | evicted, target, -1)
        importance = torch.ones_like(target, dtype=torch.float32)
        if self.kind == "pivot":
            # (k_c + sum of (k_e + k_c) / 2) / (1 + count): half an evicted key, else its anchor.
            joined = torch.zeros_like(importance)
            joined.scatter_add_(1, target.clamp_min(0), evicted.float() / 2)
            importance = torch.where(evicted, 0.5, 1 + joined)
        return Reduction.from_groups(target, importance)


def most_similar(unit: Tensor, kept: Tensor) -> Tensor:
    """Index (R, N) of the kept entry of highest cosine; kept entries map to themselves.

    Args:
        unit: (R, N, D), normalised.
        kept: (R, N) bool.
    """
    rows, length, _ = unit.shape
    index, valid = compact(kept)
    anchors = unit.gather(1, index[..., None].expand(-1, -1, unit.shape[2]))
    size = max(1, BLOCK_NUMBERS // max(1, rows * index.shape[1]))
    best = []
    for start in range(0, length, size):
        cosine = unit[:, start : start + size] @ anchors.transpose(1, 2)
        cosine = cosine.masked_fill(~valid[:, None], -torch.inf)
        best.append(index.gather(1, cosine.argmax(2)))
    return torch.where(kept, torch.arange(length, device=kept.device), torch.cat(best, 1))
