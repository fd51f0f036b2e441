"""The prefill of one run: the sequence as reducers leave it, and who is shown which layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.compressor import Evictor, Observation, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.marked import Picked
from lightkv.contract.rotary import Rotary
from lightkv.contract.view import EntriesView, LayerView, PromptInputs, VisionFeatures
from lightkv.engine.masks import hide
from lightkv.engine.plan import Plan
from lightkv.engine.returned import (
    checked_observation,
    checked_queries,
    checked_reduction,
    checked_states,
)
from lightkv.engine.shortening import LayerAdditions, Processed, Shortening

FinalNorm = Callable[[Tensor], Tensor]

# Numbers of queries held until all layers have been seen: 2^27 in half precision are 256 MiB.
HELD_NUMBERS = 2**27


class Prefill:
    """State of one prefill of B rows.

    Args:
        plan: Who takes part in the run.
        sequence: The prompts, not shortened yet.
        hidden: (B, N, D) input embeddings.
        cache: The model's cache.
        seed: For methods that draw at random.
        identities: Gives per row a number that tells its prompt from others, for the same methods.
        vision: What the vision tower knows of the tokens, if a reducer asked for it.
        final_norm: The norm after the model's last layer, if it has one.
        additions: What the decoder adds after its first layers, if it adds anything.
    """

    def __init__(
        self,
        plan: Plan,
        sequence: Shortening,
        hidden: Tensor,
        cache: Any,
        *,
        seed: int,
        identities: Callable[[], Sequence[int]] | None,
        vision: VisionFeatures | None,
        final_norm: FinalNorm | None,
        additions: LayerAdditions | None,
    ) -> None:
        self.cache = cache
        self._plan = plan
        self._sequence = sequence
        self._seed = seed
        self._identities = identities
        self._vision = vision
        self._final_norm = final_norm
        self._additions = additions
        self._inputs = PromptInputs(hidden, sequence.layout) if plan.needs_inputs else None
        self._processed: list[Processed] = []
        self._seen: list[Observation | EntriesView] = []
        self._queries: tuple[TokenLayout, Picked | None] | None = None
        if -1 in plan.views:
            self._visit(self._view(-1, hidden))

    def shorten(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs of a layer after a stage: hidden states reduced, the rest cut to size."""
        return self._sequence.inputs(args, kwargs)

    def two_way(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer whose tokens see all others, padding apart."""
        return {**kwargs, "attention_mask": self._sequence.two_way_mask()}

    def intervene(self, layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer, with attention cut where an intervention says so."""
        acting = self._plan.intervening(layer)
        if not acting:
            return kwargs
        mask = kwargs.get("attention_mask")
        for one in acting:
            pairs = one.hides(self._sequence.layout)
            if pairs is not None:
                mask = hide(mask, pairs.matrix(self._plan.facts.heads))
        return {**kwargs, "attention_mask": mask}

    def patch(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values that a layer attends to; where they are swapped, the cache holds them."""
        for one in self._plan.intervening(layer):
            swapped = one.patch(layer, self._sequence.layout, keys, values)
            if swapped is not None:
                keys, values = swapped
                self.cache.layers[layer].keys, self.cache.layers[layer].values = swapped
        return keys, values

    def adds_after(self, layer: int) -> bool:
        """True if the layer's output takes features that the decoder no longer adds."""
        return self._additions is not None and self._additions.is_ours(layer)

    def with_additions(self, layer: int, hidden: Tensor) -> Tensor:
        """A layer's output with the features that belong after it."""
        if self._additions is None:
            return hidden
        return self._additions.added(layer, hidden, self._sequence)

    def see(
        self, layer: int, hidden: Tensor, attention: Attention | None, rotary: Rotary | None
    ) -> None:
        """Show a layer to the participants that asked for it."""
        self._visit(self._view(layer, hidden, attention, rotary))

    def look_ahead(self, layer: int, hidden: Tensor, attention: Attention) -> None:
        """Show what enters a layer to the reducer that shortens it by the layer's attention."""
        self._note_up_to(layer - 1)
        reducer = self._plan.reducer_before(layer)
        if reducer is not None:
            self._reduce(reducer, self._view(layer - 1, hidden, attention, None))

    def observations(self) -> list[Observation]:
        """What the evictor says of every layer, once the last has been seen."""
        made: list[Observation] = []
        waiting: list[EntriesView] = []
        for one in (*self._seen, None):
            if isinstance(one, EntriesView):
                waiting.append(one)
                continue
            if waiting:
                made += self._observed(waiting)
                waiting = []
            if one is not None:
                made.append(one)
        return made

    def _observed(self, views: Sequence[EntriesView]) -> list[Observation]:
        evictor = self._plan.evictor
        if evictor is None:
            return []
        made = evictor.observe_together(views)
        layers = zip(made, views, strict=True)
        return [checked_observation(evictor, one, view.layout) for one, view in layers]

    def processed(self) -> Sequence[Processed]:
        """What each layer processed, once the last has been seen."""
        self._note_up_to(self._plan.facts.layers - 1)
        return self._processed

    def _view(
        self,
        layer: int,
        hidden: Tensor,
        attention: Attention | None = None,
        rotary: Rotary | None = None,
    ) -> LayerView:
        cached = self.cache.layers[layer] if layer >= 0 else None
        return LayerView(
            layer=layer,
            layers=self._plan.facts.layers,
            hidden=hidden,
            layout=self._sequence.layout,
            sizes=self._sequence.sizes,
            attention=attention,
            keys=None if cached is None else cached.keys,
            values=None if cached is None else cached.values,
            seed=self._seed,
            identities=self._identities,
            vision=self._shortened_vision(layer),
            inputs=self._inputs,
            rotary=rotary,
            final_norm=self._final_norm,
        )

    def _shortened_vision(self, layer: int) -> VisionFeatures | None:
        """Features of the vision tower, for the tokens that represent what is left."""
        if self._vision is None or layer not in self._plan.reducers:
            return None
        total = self._sequence.total
        return self._vision if total is None else self._vision.take(total)

    def _visit(self, view: LayerView) -> None:
        for observer in self._plan.observers:
            if view.layer in observer.layers(self._plan.facts):
                observer.see(view)
        if self._plan.evictor is not None and view.layer >= 0:
            self._seen.append(self._noted(self._plan.evictor, view))
        self._note_up_to(view.layer)
        reducer = self._plan.reducer_at(view.layer)
        if reducer is not None:
            self._reduce(reducer, view)

    def _reduce(self, reducer: Reducer, view: LayerView) -> None:
        reduction = checked_reduction(reducer, reducer.reduce(view), view.layout)
        states = checked_states(reducer, reducer.states(view, reduction), view, reduction)
        if states is not None or not reduction.is_identity:
            self._sequence.reduce(reduction, reducer.position_rule(), states)

    def _noted(self, evictor: Evictor, view: LayerView) -> Observation | EntriesView:
        """What is remembered of a layer: what the evictor says of it, or what it will look at."""
        picked = self._picked(evictor, view)
        if picked is None:
            return checked_observation(evictor, evictor.observe(view), view.layout)
        attention = view.attention
        if isinstance(attention, ProjectedAttention):
            attention = attention.of_queries(picked)
        return EntriesView(
            layer=view.layer,
            layers=view.layers,
            layout=view.layout,
            sizes=view.sizes,
            attention=attention,
            keys=view.keys,
            values=view.values,
            seed=view.seed,
            identities=view.identities,
            rotary=view.rotary,
        )

    def _picked(self, evictor: Evictor, view: LayerView) -> Picked | None:
        """The queries that an evictor reads of a layer, if they can be held until the end."""
        if self._queries is None or self._queries[0] is not view.layout:
            marked = checked_queries(evictor, evictor.queries(view.layout), view.layout)
            self._queries = view.layout, None if marked is None else Picked.of(marked)
        picked, attention = self._queries[1], view.attention
        if picked is None or not isinstance(attention, ProjectedAttention):
            return picked
        numbers = picked.index.numel() * attention.heads * attention.queries.shape[3]
        return picked if numbers * view.layers <= HELD_NUMBERS else None

    def _note_up_to(self, layer: int) -> None:
        while len(self._processed) <= layer:
            self._processed.append(self._sequence.processed)
