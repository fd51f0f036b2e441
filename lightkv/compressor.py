"""What the graph and the methods agree on: views in, reductions and retentions out.

A compressor is a frozen dataclass of its hyperparameters and holds no state of a run.  The graph
hands it one :class:`LayerView` per layer that it asked for; a :class:`Reducer` answers with a
:class:`~lightkv.reduction.Reduction`, an :class:`Evictor` with an :class:`Observation` per layer
and, after prefill, one :class:`Retention` per layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lightkv.attention import Attention
from lightkv.errors import UnsupportedError
from lightkv.layout import TokenLayout
from lightkv.reduction import Reduction, compact

if TYPE_CHECKING:
    from lightkv.eviction.decoding import DecodePolicy

Positions = Literal["keep", "reindex"]


@dataclass(frozen=True)
class ModelFacts:
    """What a method may know about a model, in order to validate itself before a run."""

    layers: int
    heads: int
    kv_heads: int
    hidden_size: int


@dataclass(frozen=True)
class VisionFeatures:
    """What the vision side of a model knows of each vision token, at its place in the sequence.

    All are zero outside the vision tokens; a field is None where the model has no such thing or
    no method asked for it.

    Attributes:
        cls_attention: (B, N) float32, attention of the class token to each patch in the tower
            layer that the projector reads, sum over heads.
        first_attention: (B, N) float32, the same in the tower's first layer.
        keys: (B, N, d) keys of that reading layer, mean over heads.
        features: (B, N, d) the tower's output before the projector.
        text_relevance: (B, N) float32, cosine of patch and question in a joint embedding space.
    """

    cls_attention: Tensor | None = None
    first_attention: Tensor | None = None
    keys: Tensor | None = None
    features: Tensor | None = None
    text_relevance: Tensor | None = None


@dataclass(frozen=True)
class PromptInputs:
    """The uncompressed prompt at the input of the first layer.

    Attributes:
        hidden: (B, N0, D) input embeddings.
        layout: Their layout.
    """

    hidden: Tensor
    layout: TokenLayout


@dataclass(frozen=True)
class LayerView:
    """One decoder layer of the prefill, as a compressor sees it.

    Attributes:
        layer: 0-based index; -1 is the input of the first layer.
        layers: Number of layers of the decoder.
        hidden: (B, N, D) output of the layer.
        layout: Layout of the N positions at this layer.
        sizes: (B, N) int64, original tokens that each position stands for.
        attention: Attention of the layer, or None if it was not asked for.
        keys, values: (B, H_kv, N, d) cache entries of the layer, or None at layer -1.
        seed: Seed of the run, for methods that draw at random.
        vision: What the vision tower knows, or None if nothing of it was asked for.
        inputs: The uncompressed prompt, or None if it was not asked for.
    """

    layer: int
    layers: int
    hidden: Tensor
    layout: TokenLayout
    sizes: Tensor
    attention: Attention | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    seed: int = 0
    vision: VisionFeatures | None = None
    inputs: PromptInputs | None = None

    def read_attention(self) -> Attention:
        """The layer's attention.

        Raises:
            RuntimeError: If the compressor did not list this layer in ``attention_layers``.
        """
        if self.attention is None:
            raise RuntimeError(f"the attention of layer {self.layer} was not asked for")
        return self.attention

    def read_vision(self, name: str) -> Tensor:
        """A field of :class:`VisionFeatures`.

        Raises:
            UnsupportedError: If the model has no such thing.
        """
        value: Tensor | None = getattr(self.vision, name, None)
        if value is None:
            raise UnsupportedError(f"this model gives no {name} of its vision tower")
        return value

    def read_inputs(self) -> PromptInputs:
        """The uncompressed prompt.

        Raises:
            RuntimeError: If the compressor did not ask for it in ``needs_inputs``.
        """
        if self.inputs is None:
            raise RuntimeError("the uncompressed prompt was not asked for")
        return self.inputs

    def generator(self) -> torch.Generator:
        """A generator that depends on the run's seed and the layer only."""
        return torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + self.layer + 1)


@dataclass(frozen=True)
class Observation:
    """What an evictor remembers of one layer.

    Attributes:
        layout: Layout of the layer's N entries.
        score: (B, N) float32, or (B, H_kv, N) for methods that decide per head. Higher is kept.
        strength: (B,) float32, the layer's claim on the total budget; (B, F) for budgets that need
            more than one number of a layer.
        keys: (B, H_kv, N, d) cache entries, for methods that merge by their likeness, or None.
    """

    layout: TokenLayout
    score: Tensor
    strength: Tensor
    keys: Tensor | None = None


@dataclass(frozen=True)
class Retention:
    """Entries of one layer's cache that stay.

    Attributes:
        index: (B, G, K) int64 into the layer's entries, ascending where valid; G is 1 if all heads
            share the set, else H_kv. Invalid slots come first (left padding).
        valid: (B, G, K) bool.
        requested: (B,) float32, entries that the budget asked for, before protection and rounding.
        budget_ratio: (B,) float32 or None: share of a growing cache that the layer may hold while
            decoding, for decode policies that go on evicting.
        tail: (B,) int64 or None: entries at the end of the cache that decoding may not evict.
        merge: What evicted entries leave behind in kept ones, or None for nothing: a reduction of
            B * G rows (groups of a batch row next to each other) whose survivors are ``index``.
    """

    index: Tensor
    valid: Tensor
    requested: Tensor
    budget_ratio: Tensor | None = None
    tail: Tensor | None = None
    merge: Reduction | None = None

    @classmethod
    def from_keep(
        cls,
        keep: Tensor,
        requested: Tensor,
        budget_ratio: Tensor | None = None,
        tail: Tensor | None = None,
        merge: Reduction | None = None,
    ) -> Retention:
        """Build from a mask (B, N) or (B, H_kv, N) of the entries that stay."""
        grouped = keep[:, None] if keep.dim() == 2 else keep
        index, valid = compact(grouped)
        return cls(index, valid, requested, budget_ratio, tail, merge)

    def apply(self, states: Tensor) -> Tensor:
        """Keys or values (B, H_kv, N, d) of the layer to (B, H_kv, K, d) of what stays."""
        batch, groups, kept = self.index.shape
        heads, width = states.shape[1], states.shape[3]
        if self.merge is None:
            where = self.index.repeat_interleave(heads // groups, 1)[..., None]
            return states.gather(2, where.expand(-1, -1, -1, width))
        # Heads of a group share their assignment: they become part of the feature dimension.
        flat = states.view(batch * groups, heads // groups, -1, width).transpose(1, 2)
        merged = self.merge.apply(flat.flatten(2))
        return (
            merged.view(batch * groups, kept, -1, width)
            .transpose(1, 2)
            .reshape(batch, heads, kept, width)
        )

    @property
    def counts(self) -> Tensor:
        """(B, G) int64: entries kept."""
        return self.valid.sum(-1)


@dataclass(frozen=True)
class Compressor(ABC):
    """Base of every method; ``a | b`` merges or prunes with a in prefill, then evicts with b."""

    @abstractmethod
    def check(self, facts: ModelFacts) -> None:
        """Validate the hyperparameters against a model.

        Raises:
            InvalidValueError: If one is out of range; nothing has run yet.
        """

    @abstractmethod
    def check_layout(self, layout: TokenLayout) -> None:
        """Validate against a prompt.

        Raises:
            InputError, InvalidValueError: If the prompt can't be compressed as asked.
        """

    @property
    @abstractmethod
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        """The reducers and evictors this compressor consists of, in order."""

    def __or__(self, other: Compressor) -> Pipeline:
        return Pipeline((*self.parts, *other.parts))


@dataclass(frozen=True)
class Reducer(Compressor):
    """A method that shortens the sequence during prefill."""

    @property
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        return (self,)

    def position_rule(self) -> Positions:
        """Whether survivors keep their rotary position or are renumbered."""
        return "keep"

    @abstractmethod
    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layers after which the sequence is shortened (-1: before the first)."""

    @abstractmethod
    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Stage layers of which the attention is needed."""

    def needs_vision(self) -> frozenset[str]:
        """Fields of :class:`VisionFeatures` that ``reduce`` reads."""
        return frozenset()

    def needs_inputs(self) -> bool:
        """True if ``reduce`` reads the uncompressed prompt."""
        return False

    @abstractmethod
    def reduce(self, view: LayerView) -> Reduction:
        """The reduction to apply after this layer."""


@dataclass(frozen=True)
class Evictor(Compressor):
    """A method that drops cache entries after prefill (and perhaps while decoding)."""

    @property
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        return (self,)

    @abstractmethod
    def decode_policy(self) -> DecodePolicy:
        """What happens to the cache while decoding."""

    @abstractmethod
    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layers of which the attention is needed."""

    @abstractmethod
    def observe(self, view: LayerView) -> Observation:
        """Score one layer's entries."""

    @abstractmethod
    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        """Decide, after prefill, what every layer keeps."""


@dataclass(frozen=True)
class Pipeline(Compressor):
    """Compressors in a row: reducers first, at most one evictor, last."""

    sequence: tuple[Reducer | Evictor, ...]

    @property
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        return self.sequence

    def check(self, facts: ModelFacts) -> None:
        for part in self.sequence:
            part.check(facts)

    def check_layout(self, layout: TokenLayout) -> None:
        for part in self.sequence:
            part.check_layout(layout)

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.sequence)
