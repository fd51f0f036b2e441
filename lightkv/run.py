"""The state of one run: what the graph asks at each layer and step, and what it is told.

A run is created for one call of ``generate`` and thrown away after its record was read, so no two
samples share state.  It knows the contracts of :mod:`lightkv.compressor`, and no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lightkv.attention import Attention
from lightkv.cache import LayerEntries, as_mask, decode_mask, shortened_mask
from lightkv.compressor import (
    Compressor,
    Evictor,
    LayerView,
    ModelFacts,
    Observation,
    Reducer,
    Retention,
)
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.decoding import DecodePolicy, DecodeView, Grow
from lightkv.layout import TokenLayout
from lightkv.record import LayerRecord, RunRecord, single_provenance, single_row
from lightkv.reduction import Reduction


class Observer(Protocol):
    """Looks at layers during prefill and changes nothing."""

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        """Layers to look at."""

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        """Those of them whose attention is needed."""

    def see(self, view: LayerView) -> None:
        """Look at one layer."""


@dataclass(frozen=True)
class Plan:
    """Who takes part in a run: reducers by stage layer, at most one evictor, observers."""

    facts: ModelFacts
    method: str = "none"
    reducers: dict[int, Reducer] = field(default_factory=dict)
    evictor: Evictor | None = None
    observers: tuple[Observer, ...] = ()
    views: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    decode_policy: DecodePolicy = field(default_factory=Grow)

    @classmethod
    def of(
        cls, compressor: Compressor | None, facts: ModelFacts, observers: tuple[Observer, ...] = ()
    ) -> Plan:
        """Validate a compressor against a model and say what it needs to look at.

        Raises:
            InvalidValueError: If a hyperparameter is out of range, two reducers share a layer, or
                something follows an evictor.
        """
        reducers: dict[int, Reducer] = {}
        evictor: Evictor | None = None
        views: set[int] = set()
        attention: set[int] = set()
        if compressor is not None:
            compressor.check(facts)
        for part in compressor.parts if compressor is not None else ():
            if evictor is not None:
                raise InvalidValueError(
                    "compressor", str(compressor), "reducers first, then at most one evictor"
                )
            if isinstance(part, Evictor):
                evictor = part
                views |= set(range(facts.layers))
            else:
                stages = part.stage_layers(facts)
                shared = sorted(set(stages) & set(reducers))
                if shared:
                    raise InvalidValueError(
                        "compressor", str(compressor), f"one reducer per layer; {shared} have two"
                    )
                reducers.update(dict.fromkeys(stages, part))
                views |= set(stages)
            attention |= set(part.attention_layers(facts))
        for observer in observers:
            views |= set(observer.layers(facts))
            attention |= set(observer.attention_layers(facts))
        return cls(
            facts,
            "none" if compressor is None else str(compressor),
            reducers,
            evictor,
            observers,
            frozenset(views),
            frozenset(attention),
            evictor.decode_policy() if evictor is not None else Grow(),
        )


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
        additive_masks: True if the attention kernel takes additive masks (eager attention).
    """

    def __init__(
        self, plan: Plan, layout: TokenLayout, *, seed: int = 0, additive_masks: bool = False
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.seed = seed
        self.decode_policy = plan.decode_policy
        self._additive_masks = additive_masks
        self._additive: torch.dtype | None = None
        self._cache: Any = None
        self._current = layout
        self._total: Reduction | None = None
        self._source: Tensor | None = None
        self._provenance: list[Reduction | None] = []
        self._layouts: list[TokenLayout] = []
        self._observations: list[Observation] = []
        self._entries: list[LayerEntries] = []
        self._entry_bytes = 0
        self._step = 0
        self._record_entries: list[tuple[Tensor, Tensor]] = []
        self.pending: Reduction | None = None
        self.changed = False

    # ------------------------------------------------------------------ prefill

    @property
    def shortened(self) -> bool:
        """True if layers now process fewer tokens than the prompt has."""
        return self._total is not None

    def needs(self, layer: int) -> Needs:
        """What the run wants of a layer."""
        return Needs(layer in self.plan.views, layer in self.plan.attention)

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
        self._current = self.layout
        self._additive = hidden.dtype if self._additive_masks else None
        if -1 in self.plan.views:
            self._visit(LayerView(-1, self.plan.facts.layers, hidden, self.layout, self._sizes()))

    def shorten(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs of a layer behind a stage: hidden states reduced, the rest cut to size.

        Rotary embeddings, position ids and masks arrive at full length at every layer; hidden
        states only at the layer right behind the stage.
        """
        hidden = args[0]
        if self.pending is not None:
            hidden = self.pending.apply(hidden)
            self.pending = None
        total, source = self._total, self._source
        if total is None or source is None:
            return args, kwargs
        cut = dict(kwargs)
        rotary = kwargs.get("position_embeddings")
        if rotary is not None:
            cut["position_embeddings"] = tuple(_pick(part, source) for part in rotary)
        if kwargs.get("position_ids") is not None:
            cut["position_ids"] = _pick(kwargs["position_ids"], source)
        cut["attention_mask"] = shortened_mask(
            kwargs.get("attention_mask"), total.index, total.valid, self._additive
        )
        return (hidden, *args[1:]), cut

    def see(self, layer: int, hidden: Tensor, attention: Attention | None) -> None:
        """Show a layer to whoever asked for it."""
        cached = self._cache.layers[layer]
        self._visit(
            LayerView(
                layer,
                self.plan.facts.layers,
                hidden,
                self._current,
                self._sizes(),
                attention,
                cached.keys,
                cached.values,
                self.seed,
            )
        )

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
            self._reduce(reducer, reducer.reduce(view))

    def _note_layer(self) -> None:
        self._layouts.append(self._current)
        self._provenance.append(self._total)

    def _reduce(self, reducer: Reducer, reduction: Reduction) -> None:
        if reduction.is_identity:
            return
        self.changed = True
        self.pending = reduction
        self._total = reduction if self._total is None else self._total.then(reduction)
        self._current = self._current.select(reduction.index, reduction.valid)
        if reducer.position_rule() == "reindex":
            self._source = self._consecutive()
        elif self._source is None:
            self._source = reduction.index
        else:
            self._source = self._source.gather(1, reduction.index)

    def _consecutive(self) -> Tensor:
        """(B, K) positions renumbered from each row's first real token."""
        valid = self._current.real
        padding = (~self.layout.real).sum(1, keepdim=True)
        return padding + (valid.long().cumsum(1) - 1).clamp_min(0)

    def _sizes(self) -> Tensor:
        if self._total is None:
            return self._current.real.long()
        return self._total.sizes()

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
        if not self.decode_policy.static:
            return False
        if not self.changed:
            return True
        return self._additive is None and not any(entries.ragged for entries in self._entries)

    def next_step(self) -> None:
        """A new token was generated and is about to join the cache."""
        self._step += 1
        newest = self.layout.prompt_lengths + self._step - 1
        for entries in self._entries:
            entries.append(newest)

    def decode_inputs(self, layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer with the mask of the layer's own entries."""
        if not self.changed:
            return kwargs
        mask = decode_mask(self._entries[layer], self.plan.facts.heads, self._additive)
        if mask is None and self._additive is not None:
            visible = torch.ones(1, 1, 1, self._entries[layer].slots, dtype=torch.bool)
            mask = as_mask(visible.to(self.layout.kind.device), self._additive)
        return {**kwargs, "attention_mask": mask}

    def evict_while_decoding(self, layer: int, attention: Tensor | None) -> None:
        """Let the decode policy drop entries, now that the newest token joined.

        Args:
            layer: 0-based.
            attention: (B, H, K) of the newest token, None unless the policy asked for it.
        """
        entries = self._entries[layer]
        grouped = None
        if attention is not None:
            groups = entries.position.shape[1]
            batch, heads, slots = attention.shape
            grouped = attention.view(batch, groups, heads // groups, slots).mean(2)
            if entries.score is not None:
                entries.score = entries.score + grouped
        retention = entries.retention
        leaving = self.decode_policy.evict(
            DecodeView(
                layer,
                entries.position,
                entries.valid,
                self.layout.prompt_lengths + self._step,
                retention.budget_ratio if retention is not None else None,
                retention.tail if retention is not None else None,
                grouped,
                entries.score,
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


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Values (B or 1, N, ...) at ``index`` (B, K)."""
    values = values.expand(index.shape[0], *values.shape[1:])
    tail = values.shape[2:]
    return values.gather(1, index.view(*index.shape, *[1] * len(tail)).expand(*index.shape, *tail))


def _repeat(layout: TokenLayout, times: int) -> TokenLayout:
    """Each row ``times`` times, as beam search and several returned sequences lay them out."""
    rows = torch.arange(layout.batch_size).repeat_interleave(times)
    columns = ("kind", "image", "segment", "frame", "row", "col", "position")
    return TokenLayout(
        **{name: getattr(layout, name)[rows] for name in columns},
        grids=tuple(layout.grids[int(row)] for row in rows),
    )
