"""What a run did: lengths, kept entries, provenance, bytes; one record per batch row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.contract.view import ModelFacts
from lightkv.engine.cache import LayerEntries
from lightkv.engine.printing import as_html, as_table, in_words
from lightkv.engine.shortening import Processed

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One decoder layer after prefill, for one row.

    Attributes:
        layer: 0-based index.
        length: Tokens that the layer processed.
        kept: (K,) int64, original prompt positions in the layer's cache, ascending. Where heads
            keep different sets: (G, K), padded with -1 in front.
        entries: Entries in the cache, mean over heads where they differ.
        requested: Entries that the budget asked for, before protection and rounding; equals
            ``entries`` where nothing was evicted.
        padded: Slots that a head takes up, padding included: the entries of the fullest head.
        provenance: Which original tokens each of the layer's ``length`` tokens stands for (one
            row), None where the layer saw the prompt unchanged.
    """

    layer: int
    length: int
    kept: Tensor
    entries: float
    requested: float
    padded: int
    provenance: Reduction | None

    def __repr__(self) -> str:
        return f"LayerRecord(layer {self.layer}: {self.length} processed, {self.entries:g} entries)"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One row of a run.

    Attributes:
        method: The compressor, printed; "none" for the full cache.
        layers: One record per decoder layer.
        layout: Layout of the row's prompt (1 row, without padding).
        kv_bytes: Bytes of the cache's valid entries after prefill, padding apart.
        padding_bytes: Bytes of padding where heads of the row hold different numbers of entries.
            Padding up to longer rows of the batch is not the row's.
        full_kv_bytes: Bytes that the full cache of the same prompt takes, with whole pictures.
        requested_retention: Share of the entries in the cache that the evictor was asked to keep,
            None without an evictor.
    """

    method: str
    layers: tuple[LayerRecord, ...]
    layout: TokenLayout
    kv_bytes: int
    padding_bytes: int
    full_kv_bytes: int
    requested_retention: float | None

    def __repr__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def table(self) -> pd.DataFrame:
        """One row per layer: tokens processed, entries held, by kind, and entries asked for."""
        return as_table(self)

    @property
    def achieved_retention(self) -> float:
        """Share of the full cache's entries that are held after prefill, all layers together."""
        return self.kv_bytes / self.full_kv_bytes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the numbers above don't show, in words."""
        if not self.padding_bytes:
            return ()
        return (
            f"heads hold different numbers of entries: {self.padding_bytes} bytes of padding hide "
            f"part of the saving ({self.kv_bytes} bytes are entries)",
        )

    @property
    def prefill_lengths(self) -> tuple[int, ...]:
        """Tokens that each layer processed."""
        return tuple(layer.length for layer in self.layers)


class RunRecords(Sequence[RunRecord]):
    """One record per row, made when the first of them is read.

    Args:
        method: The compressor, printed.
        facts: Of the model.
        layout: Layout of the prompts, (B, N).
        processed: What each layer processed.
        entries: What each layer's cache held right after prefill.
        entry_bytes: Bytes of one key and its value in one head.
        evicted: True if an evictor took part.
        saved: (B,) int64, tokens that each prompt lacks because its pictures were made smaller.
    """

    def __init__(
        self,
        method: str,
        facts: ModelFacts,
        layout: TokenLayout,
        processed: Sequence[Processed],
        entries: Sequence[LayerEntries],
        *,
        entry_bytes: int,
        evicted: bool,
        saved: Tensor | None = None,
    ) -> None:
        self._method = method
        self._facts = facts
        self._layout = layout
        self._processed = processed
        self._entries = entries
        self._entry_bytes = entry_bytes
        self._evicted = evicted
        self._saved = saved
        self._made: tuple[RunRecord, ...] | None = None

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RunRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> RunRecord | tuple[RunRecord, ...]:
        return self._rows()[index]

    def __len__(self) -> int:
        return self._layout.batch_size

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._rows()))

    def _rows(self) -> tuple[RunRecord, ...]:
        if self._made is None:
            self._made = tuple(self._row(row) for row in range(len(self)))
        return self._made

    def _row(self, row: int) -> RunRecord:
        real = self._layout.real[row]
        parts = enumerate(zip(self._processed, self._entries, strict=True))
        layers = tuple(
            layer_record(number, row, processed, entries, real)
            for number, (processed, entries) in parts
        )
        per_entry = self._entry_bytes * self._facts.kv_heads
        saved = 0 if self._saved is None else int(self._saved[row])
        full = (int(self._layout.prompt_lengths[row]) + saved) * self._facts.layers
        requested = None
        if self._evicted:
            requested = sum(one.requested for one in layers) / sum(one.length for one in layers)
        return RunRecord(
            method=self._method,
            layers=layers,
            layout=single_row(self._layout, row),
            kv_bytes=round(sum(layer.entries for layer in layers) * per_entry),
            padding_bytes=round(sum(layer.padded - layer.entries for layer in layers) * per_entry),
            full_kv_bytes=full * per_entry,
            requested_retention=requested,
        )


def untouched_records(facts: ModelFacts, layout: TokenLayout, entry_bytes: int) -> RunRecords:
    """Records of a run without any intervention, known from the layout alone.

    Args:
        facts: Of the model.
        layout: Layout of the prompts, (B, N).
        entry_bytes: Bytes of one key and its value in one head.
    """
    processed = [Processed(layout)] * facts.layers
    entries = [LayerEntries(layout)] * facts.layers
    return RunRecords(
        "none", facts, layout, processed, entries, entry_bytes=entry_bytes, evicted=False
    )


def single_row(layout: TokenLayout, row: int) -> TokenLayout:
    """Row ``row`` of a layout, without padding."""
    keep = layout.real[row].nonzero()[:, 0][None]
    return layout.rows([row]).select(keep, torch.ones_like(keep, dtype=torch.bool)).to("cpu")


def single_provenance(reduction: Reduction, row: int, real: Tensor) -> Reduction:
    """Row ``row`` of a reduction in the row's own coordinates, padding removed.

    Args:
        reduction: Of the padded batch.
        row: Batch row.
        real: (N,) bool, the row's real tokens before the reduction.
    """
    old = real.nonzero()[:, 0]
    place = real.long().cumsum(0) - 1
    valid = reduction.valid[row]
    first = int((~valid).sum())
    target = reduction.target[row, old]
    return Reduction(
        index=place[reduction.index[row, first:]][None].cpu(),
        valid=valid[None, first:].cpu(),
        target=torch.where(target >= 0, target - first, -1)[None].cpu(),
        weight=reduction.weight[row, old][None].cpu(),
        rule=reduction.rule,
    )


def layer_record(
    layer: int, row: int, processed: Processed, entries: LayerEntries, real: Tensor
) -> LayerRecord:
    """Record of one layer for batch row ``row``.

    Args:
        layer: 0-based index.
        row: Batch row.
        processed: What the layer processed.
        entries: Of the layer's cache, after prefill.
        real: (N,) bool, the row's real tokens before any shortening.
    """
    position, valid = entries.position[row].cpu(), entries.valid[row].cpu()
    counts = valid.sum(-1).float()
    # Padding up to other rows is cut; where heads differ, padding up to the longest head stays.
    index, held_slot = compact(valid)
    kept = torch.where(held_slot, position.gather(1, index), -1)
    kept = kept[0] if kept.shape[0] == 1 else kept
    held, retention = float(counts.mean()), entries.retention
    provenance = processed.provenance
    return LayerRecord(
        layer=layer,
        length=int(processed.layout.real[row].sum()),
        kept=kept,
        entries=held,
        requested=float(retention.requested[row]) if retention is not None else held,
        padded=int(counts.max()),
        provenance=None if provenance is None else single_provenance(provenance, row, real),
    )
