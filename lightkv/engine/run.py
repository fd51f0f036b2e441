"""The state of one run: what the graph asks at each layer and step, and what it is told.

A run is created for one call of ``generate`` and thrown away after its record was read, so no two
samples share state.  It knows the contracts of :mod:`lightkv.contract.compressor`, and no method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.compressor import LayerView, Observation, PromptInputs, VisionFeatures
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.engine.cache import LayerEntries, hide
from lightkv.engine.held import HeldCache
from lightkv.engine.plan import Observer, Plan, Quirks
from lightkv.engine.record import RunRecord, layer_record, single_row
from lightkv.engine.renumbering import Renumbering
from lightkv.engine.returned import (
    checked_observation,
    checked_reduction,
    checked_retentions,
)
from lightkv.engine.shortening import LayerAdditions, Rotary, Shortening
from lightkv.errors import UnsupportedError

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
        text_rotary: See :class:`~lightkv.engine.shortening.Shortening`.
        renumbering: See :class:`~lightkv.engine.held.HeldCache`.
    """

    def __init__(
        self,
        plan: Plan,
        layout: TokenLayout,
        *,
        seed: int = 0,
        quirks: Quirks | None = None,
        text_rotary: Rotary | None = None,
        renumbering: Renumbering | None = None,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.seed = seed
        self._quirks = Quirks((None,) * plan.facts.layers) if quirks is None else quirks
        self._text_rotary = text_rotary
        self._renumbering = renumbering
        self._additive: torch.dtype | None = None
        self.vision: VisionFeatures | None = None
        self._inputs: PromptInputs | None = None
        self._cache: Any = None
        self._additions: LayerAdditions | None = None
        self._sequence = Shortening(layout, None, None)
        self._provenance: list[Reduction | None] = []
        self._layouts: list[TokenLayout] = []
        self._behind: list[Tensor | None] = []
        self._observations: list[Observation] = []
        self._after_prefill: tuple[LayerEntries, ...] = ()
        self._entry_bytes = 0
        self._held: HeldCache | None = None

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
            times = rows // self.layout.batch_size
            self.layout = _repeat(self.layout, times)
            self.vision = None if self.vision is None else self.vision.repeated(times)
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
            observed = self.plan.evictor.observe(view)
            self._observations.append(checked_observation(self.plan.evictor, observed, view.layout))
        while len(self._layouts) <= view.layer:
            self._note_layer()
        reducer = self.plan.reducers.get(view.layer)
        if reducer is None:
            return
        reduction = checked_reduction(reducer, reducer.reduce(view), view.layout)
        if not reduction.is_identity:
            self._sequence.reduce(reduction, reducer.position_rule())

    def _note_layer(self) -> None:
        self._layouts.append(self._sequence.layout)
        self._provenance.append(self._sequence.total)
        self._behind.append(self._sequence.behind)

    def finish_prefill(self) -> None:
        """After the last layer: cut every layer's cache to what is retained."""
        while len(self._layouts) < self.plan.facts.layers:
            self._note_layer()
        held = HeldCache(
            self.plan,
            self.layout,
            self._layouts,
            self._cache,
            self._quirks,
            self._additive,
            shortened=self.shortened,
            behind=self._behind,
            renumbering=self._renumbering,
        )
        if self.plan.evictor is not None:
            retentions = self.plan.evictor.retain(self._observations)
            layers, rows = self.plan.facts.layers, self.layout.batch_size
            held.retain(
                self._observations,
                checked_retentions(self.plan.evictor, retentions, layers, rows),
            )
        self._observations.clear()
        self._after_prefill = tuple(replace(entries) for entries in held.entries)
        self._entry_bytes = held.entry_bytes
        self._held = held

    @property
    def prefilled(self) -> bool:
        """True once the prompt is in the cache."""
        return self._held is not None

    @property
    def held(self) -> HeldCache:
        """The cache after prefill.

        Raises:
            UnsupportedError: If the run has not read its prompt yet.
        """
        if self._held is None:
            raise UnsupportedError("this run has not read its prompt yet")
        return self._held

    # ------------------------------------------------------------------ record

    def records(self) -> list[RunRecord]:
        """One record per row, of the state after prefill."""
        return [self._row_record(row) for row in range(self.layout.batch_size)]

    def untouched_records(self, entry_bytes: int) -> list[RunRecord]:
        """Records of a run without any intervention, known from the layout alone.

        Args:
            entry_bytes: Bytes of one key and its value in one head.
        """
        while len(self._layouts) < self.plan.facts.layers:
            self._note_layer()
        self._after_prefill = tuple(LayerEntries.of_layout(layout) for layout in self._layouts)
        self._entry_bytes = entry_bytes
        return self.records()

    def _row_record(self, row: int) -> RunRecord:
        real = self.layout.real[row]
        parts = zip(self._layouts, self._after_prefill, self._provenance, strict=True)
        layers = tuple(
            layer_record(number, row, layout, entries, provenance, real)
            for number, (layout, entries, provenance) in enumerate(parts)
        )
        per_entry = self._entry_bytes * self.plan.facts.kv_heads
        full = int(self.layout.prompt_lengths[row]) * self.plan.facts.layers
        requested = None
        if self.plan.evictor is not None:
            requested = sum(one.requested for one in layers) / sum(one.length for one in layers)
        return RunRecord(
            self.plan.method,
            layers,
            single_row(self.layout, row),
            round(sum(layer.entries for layer in layers) * per_entry),
            round(sum(layer.padded - layer.entries for layer in layers) * per_entry),
            full * per_entry,
            requested,
        )


def _repeat(layout: TokenLayout, times: int) -> TokenLayout:
    """Each row ``times`` times, as beam search and several returned sequences lay them out."""
    rows = torch.arange(layout.batch_size).repeat_interleave(times)
    columns = ("kind", "image", "segment", "frame", "row", "col", "position")
    return TokenLayout(
        **{name: getattr(layout, name)[rows] for name in columns},
        grids=tuple(layout.grids[int(row)] for row in rows),
    )
