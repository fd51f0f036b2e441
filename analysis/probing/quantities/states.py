"""Hidden states, keys and values: in full, or pooled over the tokens of a kind."""

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
    masked_mean,
    register,
)
from lightkv.contract.view import ModelFacts
from lightkv.errors import UnsupportedError

POOLS: Final = (*KINDS, "last")
"""What states are pooled over: the tokens of a kind, or the last token of the prompt alone."""


@dataclass(frozen=True)
class States(LayerQuantity):
    """States of every token, (key, dim); keys and values have one vector per KV head."""

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("key", "dim") if self.needs == "hidden" else ("key", "kv_head", "head_dim")

    def size(self, facts: ModelFacts, length: int, heads: Heads) -> int:
        return length * self._width(facts)

    def _width(self, facts: ModelFacts) -> int:
        """Numbers per token."""
        if self.needs == "hidden":
            return facts.hidden_size
        return facts.hidden_size * facts.kv_heads // facts.heads

    def measure(self, reading: Reading) -> Tensor:
        states = self.states(reading)
        return states if self.needs == "hidden" else states.transpose(1, 2)

    def states(self, reading: Reading) -> Tensor:
        """(B, N, D), or (B, H_kv, N, d) for keys and values."""
        return reading.view.hidden.float()


@dataclass(frozen=True)
class Pooled(States):
    """Mean state of each group of :data:`POOLS`; KV heads side by side."""

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("pool", "dim") if self.needs == "hidden" else ("pool", "kv_dim")

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"pool": list(POOLS)}

    def size(self, facts: ModelFacts, length: int, heads: Heads) -> int:
        return len(POOLS) * self._width(facts)

    def measure(self, reading: Reading) -> Tensor:
        states = self.states(reading)
        if self.needs != "hidden":
            states = states.transpose(1, 2).flatten(2)  # (B, H_kv, N, d) to (B, N, H_kv d)
        pooled = [masked_mean(states, reading.mask(kind)) for kind in KINDS]
        return torch.stack([*pooled, states[:, -1]], 1)


class _Keys:
    needs: ClassVar[Need] = "cache"

    def states(self, reading: Reading) -> Tensor:
        """Rotated keys of the cache, (B, H_kv, N, d)."""
        return _given(reading.view.keys, reading)


class _Values:
    needs: ClassVar[Need] = "cache"

    def states(self, reading: Reading) -> Tensor:
        """Values of the cache, (B, H_kv, N, d)."""
        return _given(reading.view.values, reading)


def _given(states: Tensor | None, reading: Reading) -> Tensor:
    if states is None:
        raise UnsupportedError(f"layer {reading.view.layer} has no cache entries to read")
    return states.float()


@register
@dataclass(frozen=True)
class Hidden(States):
    """Hidden states that a layer puts out."""

    name: ClassVar[str] = "hidden"
    definition: ClassVar[str] = "residual stream after the layer (layer -1: its input)"


@register
@dataclass(frozen=True)
class HiddenPooled(Pooled):
    """Mean hidden state of each kind of token, and the last token's."""

    name: ClassVar[str] = "hidden_pooled"
    definition: ClassVar[str] = "mean residual stream over the tokens of a kind; last token alone"


@register
@dataclass(frozen=True)
class Keys(_Keys, States):
    """Keys as they lie in the cache, after rotary embedding."""

    name: ClassVar[str] = "keys"
    definition: ClassVar[str] = "key of every token and KV head after rotary embedding"


@register
@dataclass(frozen=True)
class KeysPooled(_Keys, Pooled):
    """Mean key of each kind of token."""

    name: ClassVar[str] = "keys_pooled"
    definition: ClassVar[str] = "mean key over the tokens of a kind, KV heads side by side"


@register
@dataclass(frozen=True)
class Values(_Values, States):
    """Values as they lie in the cache."""

    name: ClassVar[str] = "values"
    definition: ClassVar[str] = "value of every token and KV head"


@register
@dataclass(frozen=True)
class ValuesPooled(_Values, Pooled):
    """Mean value of each kind of token."""

    name: ClassVar[str] = "values_pooled"
    definition: ClassVar[str] = "mean value over the tokens of a kind, KV heads side by side"
