"""The state of one run: what the graph asks at each layer and step, and what it is told.

A run is created for one call of ``generate`` and thrown away after its record was read, so no two
samples share state.  It knows the contracts of :mod:`lightkv.compressor`, and no method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.attention import Attention
from lightkv.cache import LayerEntries, as_mask, decode_mask, hide
from lightkv.compressor import (
    LayerView,
    Observation,
    PromptInputs,
    Retention,
    VisionFeatures,
)
from lightkv.errors import UnsupportedError
from lightkv.eviction.decoding import DecodeView
from lightkv.layout import TokenLayout
from lightkv.plan import Observer, Plan, Quirks
from lightkv.record import LayerRecord, RunRecord, single_provenance, single_row
from lightkv.reduction import Reduction
from lightkv.shortening import LayerAdditions, Rotary, Shortening

__all__ = ["Observer", "Plan", "Quirks", "Run"]


@dataclass(frozen=True)
class Needs:
    """What a run wants of one layer."""

    view: bool
    attention: bool


class Run:
    """One call of ``generate`` for B rows.

    Args:
        plan: Who takes part.
        layout: Layout of the padded prompts, (B, N).
        seed: For methods that draw at random.
        quirks: What sets the model apart from a plain decoder.
        text_rotary: See :class:`~lightkv.shortening.Shortening`.
    """

    def __init__(
        self,
        plan: Plan,
        layout: TokenLayout,
        *,
        seed: int = 0,
        quirks: Quirks | None = None,
        text_rotary: Rotary | None = None,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.seed = seed
        self.decode_policy = plan.decode_policy
        self._quirks = Quirks((None,) * plan.facts.layers) if quirks is None else quirks
        self._text_rotary = text_rotary
        self._additive: torch.dtype | None = None
        self.vision: VisionFeatures | None = None
        self._inputs: PromptInputs | None = None
        self._cache: Any = None
        self._additions: LayerAdditions | None = None
        self._sequence = Shortening(layout, None, None)
        self._provenance: list[Reduction | None] = []
        self._layouts: list[TokenLayout] = []
        self._observations: list[Observation] = []
        self._entries: list[LayerEntries] = []
        self._entry_bytes = 0
        self._seen = layout.prompt_lengths
        self._joining: Tensor | None = None
        self._new = 1
        self._record_entries: list[tuple[Tensor, Tensor]] = []
        self.changed = False
        self.prefilled = False
        self.continues = False

    # ------------------------------------------------------------------ prefill

    @property
    def shortened(self) -> bool:
        """True if layers now process fewer tokens than the prompt has."""
        return self._sequence.total is not None

    @property
    def needs_decoder_inputs(self) -> bool:
        """True if the decoder itself adds something to its layers that has to be cut."""
        return self._quirks.adds_to_layers

    def needs(self, layer: int) -> Needs:
        """What the run wants of a layer."""
        return Needs(layer in self.plan.views, layer in self.plan.attention)

    def enter(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the decoder, asked for if ``needs_decoder_inputs``."""
        self._additions = LayerAdditions(kwargs, self.plan.first_stage)
        return self._additions.decoder_inputs(kwargs)

    def begin(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Start at the input of the first layer.

        Args:
            hidden: (B, N, D) input embeddings.
            kwargs: The first layer's keyword arguments.

        Raises:
            UnsupportedError: If the cache or the batch is of a kind that would be silently wrong.
        """
        self._cache = kwargs.get("past_key_values")
        if self._cache is None:
            raise UnsupportedError("compression needs the KV cache: set use_cache=True")
        rows, length = hidden.shape[:2]
        if length != self.layout.length or rows % self.layout.batch_size:
            raise UnsupportedError(
                f"the model processes {rows} x {length} tokens at once, the prompt has "
                f"{self.layout.batch_size} x {self.layout.length}: chunked prefill and a "
                "conversation continued on an old cache can't be compressed"
            )
        if rows != self.layout.batch_size:
            self.layout = _repeat(self.layout, rows // self.layout.batch_size)
        self.layout = self.layout.to(hidden.device)
        self._additive = hidden.dtype if self._quirks.additive_masks else None
        self._sequence = Shortening(self.layout, self._additive, self._text_rotary)
        if self.plan.needs_inputs:
            self._inputs = PromptInputs(hidden, self.layout)
        if -1 in self.plan.views:
            self._visit(self._view(-1, hidden))

    def shorten(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs of a layer behind a stage: hidden states reduced, the rest cut to size."""
        return self._sequence.inputs(args, kwargs)

    def intervenes(self, layer: int) -> bool:
        """True if an intervention acts on the layer."""
        return bool(self.plan.intervening(layer))

    def intervene(self, layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer of the prefill, with attention cut where it is wanted."""
        mask = kwargs.get("attention_mask")
        for one in self.plan.intervening(layer):
            pairs = one.hides(self._sequence.layout)
            if pairs is not None:
                mask = hide(mask, pairs.matrix())
        return {**kwargs, "attention_mask": mask}

    def patches(self, layer: int) -> bool:
        """True if an intervention swaps the layer's keys and values."""
        return any(one.swaps for one in self.plan.intervening(layer))

    def patch(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values that a layer of the prefill attends to; the cache then holds them."""
        for one in self.plan.intervening(layer):
            given = one.patch(layer, self._sequence.layout, keys, values)
            if given is not None:
                keys, values = given
                self._cache.layers[layer].keys, self._cache.layers[layer].values = given
        return keys, values

    def adds_behind(self, layer: int) -> bool:
        """True if the layer's output takes features that the decoder no longer adds."""
        return self._additions is not None and self._additions.is_ours(layer)

    def with_additions(self, layer: int, hidden: Tensor) -> Tensor:
        """A layer's output with the features that belong behind it."""
        if self._additions is None:
            return hidden
        return self._additions.added(layer, hidden, self._sequence)

    def see(self, layer: int, hidden: Tensor, attention: Attention | None) -> None:
        """Show a layer to whoever asked for it."""
        cached = self._cache.layers[layer]
        self._visit(self._view(layer, hidden, attention, cached.keys, cached.values))

    def _view(
        self,
        layer: int,
        hidden: Tensor,
        attention: Attention | None = None,
        keys: Tensor | None = None,
        values: Tensor | None = None,
    ) -> LayerView:
        return LayerView(
            layer,
            self.plan.facts.layers,
            hidden,
            self._sequence.layout,
            self._sequence.sizes,
            attention,
            keys,
            values,
            self.seed,
            self._shortened_vision(layer),
            self._inputs,
        )

    def _shortened_vision(self, layer: int) -> VisionFeatures | None:
        """Features of the vision tower, for the tokens that represent what is left."""
        if self.vision is None or layer not in self.plan.reducers:
            return None
        total = self._sequence.total
        return self.vision if total is None else self.vision.take(total)

    def _visit(self, view: LayerView) -> None:
        for observer in self.plan.observers:
            if view.layer in observer.layers(self.plan.facts):
                observer.see(view)
        if self.plan.evictor is not None and view.layer >= 0:
            self._observations.append(self.plan.evictor.observe(view))
        while len(self._layouts) <= view.layer:
            self._note_layer()
        reducer = self.plan.reducers.get(view.layer)
        if reducer is not None:
            reduction = reducer.reduce(view)
            if not reduction.is_identity:
                self.changed = True
                self._sequence.reduce(reduction, reducer.position_rule())

    def _note_layer(self) -> None:
        self._layouts.append(self._sequence.layout)
        self._provenance.append(self._sequence.total)

    def finish_prefill(self) -> None:
        """After the last layer: cut every layer's cache to what is retained."""
        while len(self._layouts) < self.plan.facts.layers:
            self._note_layer()
        self._entries = [LayerEntries.of_layout(layout) for layout in self._layouts]
        if self.plan.evictor is not None:
            retentions = self.plan.evictor.retain(self._observations)
            for layer, retention in enumerate(retentions):
                self._retain(layer, retention)
        self._observations.clear()
        self._record_entries = [(e.position, e.valid) for e in self._entries]
        self._seen = self.layout.prompt_lengths
        self.prefilled = True
        first = self._cache.layers[0].keys
        self._entry_bytes = 2 * int(first.shape[3]) * first.element_size()

    def _retain(self, layer: int, retention: Retention) -> None:
        entries = self._entries[layer]
        entries.retention = retention
        if not self.decode_policy.static:
            score = self._observations[layer].score
            entries.score = score[:, None] if score.dim() == 2 else score
        keeps_all = torch.equal(retention.counts, entries.valid.sum(-1).expand_as(retention.counts))
        if keeps_all and retention.index.shape[-1] == entries.slots:
            return
        self.changed = True
        entries.retain(self._cache.layers[layer], retention)

    # ------------------------------------------------------------------ decoding

    @property
    def decoding_is_plain(self) -> bool:
        """True if decode steps need no intervention: same masks as without compression."""
        if self.continues or self.plan.interventions or not self.decode_policy.static:
            return False
        if not self.changed:
            return True
        if self._quirks.has_windows:
            return False
        # The model's own mask of a padded batch has the length, and the padding, of the full cache.
        if self._additive is not None or not bool(self.layout.real.all()):
            return False
        return not any(entries.ragged for entries in self._entries)

    @property
    def cache(self) -> Any:
        """The model's cache, as the run left it."""
        return self._cache

    def continue_with(self, tokens: Tensor) -> Tensor:
        """Announce new tokens that go on from the cache of this run, instead of a new prompt.

        Args:
            tokens: (B, T) bool, False for padding, which comes first.

        Returns:
            (B, T) int64, their positions: those of the uncompressed conversation.
        """
        self.continues = True
        self._joining = tokens
        return (self._seen[:, None] + tokens.long().cumsum(1) - 1).clamp_min(0)

    def forget_since(self, lengths: Tensor) -> None:
        """Hide entries that are no part of the conversation: what a row generated past its end.

        Args:
            lengths: (B,) int64, tokens of each row that count.
        """
        for entries in self._entries:
            entries.valid = entries.valid & (entries.position < lengths[:, None, None])
        self._seen = lengths
        self.changed = True

    def next_tokens(self, count: int) -> None:
        """Note that ``count`` new tokens are about to join the cache."""
        tokens = self._joining
        if tokens is None:
            tokens = torch.ones(
                self.layout.batch_size, count, dtype=torch.bool, device=self._seen.device
            )
        position = self._seen[:, None] + tokens.long().cumsum(1) - 1
        for entries in self._entries:
            entries.append(position.clamp_min(0), tokens)
        self._seen = self._seen + tokens.sum(1)
        self._joining = None
        self._new = count

    def decode_inputs(self, layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer with the mask of the layer's own entries."""
        hidden = self._hidden_entries(layer)
        if not self.changed and not self.continues and hidden is None:
            return kwargs
        entries, heads = self._entries[layer], self.plan.facts.heads
        window = self._quirks.windows[layer]
        mask = decode_mask(entries, heads, self._additive, self._new, window)
        if mask is None and self._additive is not None:
            visible = torch.ones(1, 1, 1, entries.slots, dtype=torch.bool)
            mask = as_mask(visible.to(self.layout.kind.device), self._additive)
        if hidden is not None:
            mask = hide(mask, hidden)
        return {**kwargs, "attention_mask": mask}

    def _hidden_entries(self, layer: int) -> Tensor | None:
        """(B, 1 or H, T, K) bool: entries that interventions hide from the newest tokens T."""
        entries = self._entries[layer]
        hidden: Tensor | None = None
        for one in self.plan.intervening(layer):
            pairs = one.hides(self.layout)
            if pairs is not None and pairs.generated:
                own = pairs.entries(entries.position, self.layout)
                hidden = own if hidden is None else hidden | own
        if hidden is None:
            return None
        groups = hidden.shape[1]
        if groups > 1:
            hidden = hidden.repeat_interleave(self.plan.facts.heads // groups, 1)
        return hidden[:, :, None].expand(-1, -1, self._new, -1)

    def evict_while_decoding(self, layer: int, attention: Tensor | None) -> None:
        """Let the decode policy drop entries, now that the newest token joined.

        Args:
            layer: 0-based.
            attention: (B, H, T, K) of the newest tokens, None unless the policy asked for it.
        """
        entries = self._entries[layer]
        grouped = None
        if attention is not None:
            batch, heads, count, slots = attention.shape
            groups = entries.position.shape[1]
            rows = attention.view(batch, groups, heads // groups, count, slots).mean(2)
            if entries.score is not None:
                real = entries.valid[:, :, slots - count :, None]
                entries.score = entries.score + (rows * real).sum(2)
            grouped = rows[:, :, -1]
        retention = entries.retention
        leaving = self.decode_policy.evict(
            DecodeView(
                layer,
                entries.position,
                entries.valid,
                self._seen,
                retention.budget_ratio if retention is not None else None,
                retention.tail if retention is not None else None,
                grouped,
                entries.score,
                retention.counts if retention is not None else None,
            )
        )
        if leaving is not None and bool(leaving.any()):
            self.changed = True
            entries.drop(self._cache.layers[layer], leaving)

    # ------------------------------------------------------------------ record

    def records(self) -> list[RunRecord]:
        """One record per row, of the state after prefill."""
        requested = getattr(self.plan.evictor, "retention", None)
        return [self._row_record(row, requested) for row in range(self.layout.batch_size)]

    def untouched_records(self, entry_bytes: int) -> list[RunRecord]:
        """Records of a run without any intervention, known from the layout alone.

        Args:
            entry_bytes: Bytes of one key and its value in one head.
        """
        while len(self._layouts) < self.plan.facts.layers:
            self._note_layer()
        self._entries = [LayerEntries.of_layout(layout) for layout in self._layouts]
        self._record_entries = [(e.position, e.valid) for e in self._entries]
        self._entry_bytes = entry_bytes
        return self.records()

    def _row_record(self, row: int, requested: float | None) -> RunRecord:
        layers = tuple(self._layer_record(layer, row) for layer in range(self.plan.facts.layers))
        per_entry = self._entry_bytes * self.plan.facts.kv_heads
        full = int(self.layout.prompt_lengths[row]) * self.plan.facts.layers
        return RunRecord(
            self.plan.method,
            layers,
            single_row(self.layout, row),
            round(sum(layer.entries for layer in layers) * per_entry),
            full * per_entry,
            requested,
        )

    def _layer_record(self, layer: int, row: int) -> LayerRecord:
        position, valid = (part[row].cpu() for part in self._record_entries[layer])
        kept = torch.where(valid, position, -1)
        counts = valid.sum(-1).float()
        # Padding up to other rows is cut; where heads differ, padding up to the longest head stays.
        kept = kept[:, kept.shape[1] - int(counts.max()) :]
        kept = kept[0] if kept.shape[0] == 1 else kept
        entries = float(counts.mean())
        retention = self._entries[layer].retention
        provenance = self._provenance[layer]
        return LayerRecord(
            layer,
            int(self._layouts[layer].real[row].sum()),
            kept,
            entries,
            float(retention.requested[row]) if retention is not None else entries,
            None
            if provenance is None
            else single_provenance(provenance, row, self.layout.real[row]),
        )


def _repeat(layout: TokenLayout, times: int) -> TokenLayout:
    """Each row ``times`` times, as beam search and several returned sequences lay them out."""
    rows = torch.arange(layout.batch_size).repeat_interleave(times)
    columns = ("kind", "image", "segment", "frame", "row", "col", "position")
    return TokenLayout(
        **{name: getattr(layout, name)[rows] for name in columns},
        grids=tuple(layout.grids[int(row)] for row in rows),
    )
