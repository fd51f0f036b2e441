"""What a method did, read from the record of the run: kept entries, merges, lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analysis.probing.quantities.base import Heads, RecordQuantity, register
from lightkv.engine.record import RunRecord


@dataclass(frozen=True)
class PerToken(RecordQuantity):
    """One number per token of the prompt."""

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("key",)


@register
@dataclass(frozen=True)
class Kept(PerToken):
    """Share of the KV heads that hold an entry of the token after prefill."""

    name: ClassVar[str] = "kept"
    definition: ClassVar[str] = "share of KV heads whose cache holds the token's entry"

    def read(self, record: RunRecord, layer: int) -> Tensor:
        kept = record.layers[layer].kept
        groups = kept if kept.dim() == 2 else kept[None]
        length = record.layout.length
        held = torch.zeros(len(groups), length + 1)
        held.scatter_(1, torch.where(groups >= 0, groups, length), 1.0)
        return held[:, :length].mean(0)


@register
@dataclass(frozen=True)
class MergedInto(PerToken):
    """Where each token of the prompt ended: provenance over the image."""

    name: ClassVar[str] = "merged_into"
    units: ClassVar[str] = "position"
    definition: ClassVar[str] = (
        "prompt position of the token that stands for this one in the layer; -1 if dropped"
    )
    dtype: ClassVar[str] = "int64"

    def read(self, record: RunRecord, layer: int) -> Tensor:
        provenance = record.layers[layer].provenance
        if provenance is None:
            return torch.arange(record.layout.length)
        target = provenance.target[0]
        into = provenance.index[0].gather(0, target.clamp_min(0))
        return torch.where(target >= 0, into, -1)


@register
@dataclass(frozen=True)
class Sources(PerToken):
    """How many tokens of the prompt each token of the layer stands for."""

    name: ClassVar[str] = "sources"
    units: ClassVar[str] = "tokens"
    definition: ClassVar[str] = "prompt tokens merged into this one; 0 if it is gone"
    dtype: ClassVar[str] = "int64"

    def read(self, record: RunRecord, layer: int) -> Tensor:
        into = MergedInto().read(record, layer)
        length = record.layout.length
        return torch.bincount(into[into >= 0], minlength=length)
