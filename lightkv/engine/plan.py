"""Who takes part in a run: reducers by stage layer, at most one evictor, observers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightkv.contract.compressor import Compressor, Evictor, Reducer
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.interventions import Intervention
from lightkv.contract.observer import Observer
from lightkv.contract.types import check_type
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError


@dataclass(frozen=True)
class Plan:
    """What a run does at which layer, known before it starts.

    Attributes:
        facts: Of the model.
        method: The compressor, printed.
        reducers: By the layer after which they shorten.
        evictor: At most one.
        observers: Those that only look.
        views: Layers that a participant wants to see.
        attention: Layers whose attention a participant wants to see.
        rotary: Layers whose rotary angles a participant wants to see.
        two_way: Layers of the prefill whose tokens see later ones too.
        decode_policy: What happens to the cache while decoding.
        interventions: What is cut or swapped in order to see what depends on it.
    """

    facts: ModelFacts
    method: str = "none"
    reducers: dict[int, Reducer] = field(default_factory=dict)
    evictor: Evictor | None = None
    observers: tuple[Observer, ...] = ()
    views: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    rotary: frozenset[int] = frozenset()
    two_way: frozenset[int] = frozenset()
    decode_policy: DecodePolicy = field(default_factory=Grow)
    interventions: tuple[Intervention, ...] = ()

    def intervening(self, layer: int) -> tuple[Intervention, ...]:
        """Interventions on a layer."""
        return tuple(one for one in self.interventions if layer in one.layers)

    def patches(self, layer: int) -> bool:
        """True if an intervention swaps the layer's keys and values."""
        return any(one.swaps for one in self.intervening(layer))

    def reducer_at(self, layer: int) -> Reducer | None:
        """The reducer that shortens a layer's output when it is seen."""
        reducer = self.reducers.get(layer)
        return None if reducer is None or reducer.looks_ahead() else reducer

    def reducer_before(self, layer: int) -> Reducer | None:
        """The reducer that shortens what enters a layer, by that layer's own attention."""
        reducer = self.reducers.get(layer - 1)
        return reducer if reducer is not None and reducer.looks_ahead() else None

    @property
    def changes(self) -> bool:
        """True if a participant does more than look."""
        return bool(self.interventions or self.reducers or self.evictor is not None)

    @property
    def first_stage(self) -> int | None:
        """First layer after which the sequence may be shortened, None without reducers."""
        return min(self.reducers, default=None)

    @property
    def needs_inputs(self) -> bool:
        """True if some reducer reads the uncompressed prompt."""
        return any(reducer.needs_inputs() for reducer in self.reducers.values())

    @property
    def needs_vision(self) -> frozenset[str]:
        """What reducers read of the vision tower."""
        return frozenset().union(*(part.needs_vision() for part in self.reducers.values()))

    @property
    def text_tower(self) -> str | None:
        """Checkpoint of the text tower that reads the question, if a reducer wants one."""
        names = (part.reads_words() for part in self.reducers.values())
        return next((name for name in names if name is not None), None)

    @property
    def renumbers(self) -> bool:
        """True if some reducer gives survivors new positions."""
        return any(reducer.position_rule() != "keep" for reducer in self.reducers.values())

    @property
    def renumbers_later(self) -> bool:
        """True if tokens after the prompt go on from new positions."""
        reindexed = (part.position_rule() == "reindex" for part in self.reducers.values())
        return self.renumbers_cache or any(reindexed)

    @property
    def renumbers_cache(self) -> bool:
        """True if the evictor moves cached keys to the rotary position of their place."""
        return self.evictor is not None and self.evictor.position_rule() == "reindex"

    @classmethod
    def of(
        cls,
        compressor: Compressor | None,
        facts: ModelFacts,
        observers: Sequence[Observer] = (),
        interventions: Sequence[Intervention] = (),
    ) -> Plan:
        """Validate a compressor against a model and say what it needs to look at.

        Raises:
            InvalidValueError: If a hyperparameter is out of range, two reducers share a layer,
                something follows an evictor, both a reducer and the evictor renumber, or there is
                something else among observers or interventions.
        """
        check_type("observers", observers, Sequence[Observer])
        check_type("interventions", interventions, Sequence[Intervention])
        parts = () if compressor is None else compressor.parts
        reducers, evictor = ({}, None) if compressor is None else _placed(compressor, facts)
        everywhere = frozenset(range(facts.layers)) if evictor is not None else frozenset()
        views = {stage for stage, part in reducers.items() if not part.looks_ahead()} | everywhere
        rotary = {stage for stage, part in reducers.items() if part.needs_rotary()}
        if evictor is not None and evictor.needs_rotary():
            rotary |= everywhere
        attention = {layer for part in parts for layer in part.attention_layers(facts)}
        two_way = {
            layer
            for part in parts
            if isinstance(part, Reducer)
            for layer in part.two_way_layers(facts)
        }
        if evictor is not None and evictor.position_rule() == "reindex":
            mixed = [part for part in reducers.values() if part.position_rule() != "keep"]
            if mixed:
                raise InvalidValueError(
                    "compressor", str(compressor), "one part that renumbers; the others keep"
                )
        for observer in observers:
            seen = _observed(observer, facts)
            views |= seen[0]
            attention |= seen[1]
        return cls(
            facts,
            "none" if compressor is None else str(compressor),
            reducers,
            evictor,
            tuple(observers),
            frozenset(views),
            frozenset(attention),
            frozenset(rotary),
            frozenset(two_way),
            evictor.decode_policy() if evictor is not None else Grow(),
            tuple(interventions),
        )


@dataclass(frozen=True)
class Quirks:
    """What sets one model apart from a plain decoder, as its family says.

    Attributes:
        windows: Per layer the tokens a query looks back on, itself included; None for all.
        additive_masks: True if the attention kernel takes additive masks (eager attention).
        adds_to_layers: True if the decoder adds vision features after its first layers.
    """

    windows: tuple[int | None, ...]
    additive_masks: bool = False
    adds_to_layers: bool = False

    @property
    def has_windows(self) -> bool:
        return any(window is not None for window in self.windows)


def _placed(compressor: Compressor, facts: ModelFacts) -> tuple[dict[int, Reducer], Evictor | None]:
    """Reducers by the layer after which they shorten, and the evictor that follows them.

    Raises:
        InvalidValueError: If a hyperparameter is out of range, two reducers share a layer, or
            something follows an evictor.
    """
    compressor.check(facts)
    reducers: dict[int, Reducer] = {}
    evictor: Evictor | None = None
    for part in compressor.parts:
        if evictor is not None:
            raise InvalidValueError(
                "compressor", str(compressor), "reducers first, then at most one evictor"
            )
        if isinstance(part, Evictor):
            evictor = part
            continue
        stages = part.stage_layers(facts)
        shared = sorted(set(stages) & set(reducers))
        if shared:
            raise InvalidValueError(
                "compressor", str(compressor), f"one reducer per layer; {shared} have two"
            )
        reducers.update(dict.fromkeys(stages, part))
    return reducers, evictor


def _observed(observer: Observer, facts: ModelFacts) -> tuple[set[int], set[int]]:
    """Layers that an observer looks at, and those whose attention it reads.

    Raises:
        InvalidValueError: If one does not exist, or attention is read of a layer that is not seen.
    """
    name = type(observer).__name__
    layers, attention = set(observer.layers(facts)), set(observer.attention_layers(facts))
    if not layers <= set(range(-1, facts.layers)):
        allowed = f"from 0 to {facts.layers - 1}, or -1 for the input of the first"
        raise InvalidValueError(f"layers of {name}", sorted(layers), allowed)
    if not attention <= layers - {-1}:
        allowed = f"decoder layers among those it looks at, {sorted(layers)}"
        raise InvalidValueError(f"attention_layers of {name}", sorted(attention), allowed)
    return layers, attention
