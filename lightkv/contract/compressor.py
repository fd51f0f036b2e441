"""What the graph and the methods agree on: views in, reductions and retentions out.

A compressor is a frozen dataclass of its hyperparameters and holds no state of a run.  The graph
hands it one :class:`LayerView` per layer that it asked for; a :class:`Reducer` answers with a
:class:`~lightkv.contract.reduction.Reduction`, an :class:`Evictor` with an :class:`Observation` per
layer and, after prefill, one :class:`Retention` per layer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.types import Checked
from lightkv.contract.view import EntriesView, LayerView, ModelFacts

if TYPE_CHECKING:
    from lightkv.contract.decoding import DecodePolicy

Positions = Literal["keep", "reindex", "reindex-prefill"]
"""Rotary positions of what is left: "keep" their own; "reindex" counts as if the rest had never
been, and later tokens go on from there; "reindex-prefill" counts so in the prefill only.
Renumbering is refused where a sliding window is shorter than the conversation."""


@dataclass(frozen=True)
class Observation:
    """What an evictor remembers of one layer.

    Attributes:
        layout: Layout of the layer's N entries.
        score: (B, N) float32, or (B, H_kv, N) for methods that decide per head. Higher is kept.
        strength: (B,) float32, the layer's claim on the total budget; (B, F) for budgets that need
            more than one number of a layer.
        keys: (B, H_kv, N, d) cache entries, for methods that merge by their similarity, or None.
        claims: (B, H_kv, N) float32, by which heads compete for the layer's budget where that is
            not the score, or None.
    """

    layout: TokenLayout
    score: Tensor
    strength: Tensor
    keys: Tensor | None = None
    claims: Tensor | None = None


@dataclass(frozen=True)
class Compressor(Checked, ABC):
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

    def acts_on_pictures(self, facts: ModelFacts) -> bool:
        """True if pictures are to be made smaller before the processor of the model sees them."""
        return False

    def picture_shares(self, layout: TokenLayout) -> Sequence[float]:
        """Per prompt, the share of each picture's pixels that the processor is shown.

        Args:
            layout: Of the prompts with whole pictures.
        """
        return [1.0] * layout.batch_size

    def __or__(self, other: Compressor) -> Pipeline:
        return Pipeline((*self.parts, *other.parts))


@dataclass(frozen=True)
class Reducer(Compressor):
    """A method that shortens the sequence during prefill."""

    @property
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        return (self,)

    def position_rule(self) -> Positions:
        """Which rotary positions survivors, and the tokens after them, take."""
        return "keep"

    @abstractmethod
    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layers after which the sequence is shortened (-1: before the first)."""

    @abstractmethod
    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Stage layers of which the attention is needed."""

    def needs_vision(self) -> frozenset[str]:
        """Fields of :class:`~lightkv.contract.view.VisionFeatures` that ``reduce`` reads."""
        return frozenset()

    def reads_words(self) -> str | None:
        """Checkpoint of the text tower that reads the question for ``text_relevance``, or None."""
        return None

    def needs_inputs(self) -> bool:
        """True if ``reduce`` reads the uncompressed prompt."""
        return False

    def two_way_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layers of the prefill whose tokens see later tokens too."""
        return ()

    def looks_ahead(self) -> bool:
        """True if the attention that ``reduce`` reads is that of the layer after the stage.

        It is computed from what would enter that layer, before the stage shortens it.
        """
        return False

    def needs_rotary(self) -> bool:
        """True if ``reduce`` reads the angles of the rotary embedding."""
        return False

    @abstractmethod
    def reduce(self, view: LayerView) -> Reduction:
        """The reduction to apply after this layer."""

    def states(self, view: LayerView, reduction: Reduction) -> Tensor | None:
        """Hidden states (B, K, D) of the survivors where the reduction does not make them.

        For methods that change tokens before they were embedded. None: the reduction applies to the
        layer's output.
        """
        return None


@dataclass(frozen=True)
class Evictor(Compressor):
    """A method that drops cache entries after prefill (and perhaps while decoding)."""

    @property
    def parts(self) -> tuple[Reducer | Evictor, ...]:
        return (self,)

    def position_rule(self) -> Positions:
        """Whether cached keys keep their rotary position or take that of their place."""
        return "keep"

    @abstractmethod
    def decode_policy(self) -> DecodePolicy:
        """What happens to the cache while decoding."""

    @abstractmethod
    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Layers of which the attention is needed."""

    def needs_rotary(self) -> bool:
        """True if ``observe`` reads the angles of the rotary embedding."""
        return False

    def queries(self, layout: TokenLayout) -> Tensor | None:
        """(B, N) bool: the queries whose attention :meth:`observe` reads, None for all of them.

        An evictor that names its queries is shown all layers after the prefill, when several can
        be looked at together, and only these queries are held until then.
        """
        return None

    @abstractmethod
    def observe(self, view: EntriesView) -> Observation:
        """Score one layer's entries."""

    def observe_together(self, views: Sequence[EntriesView]) -> list[Observation]:
        """Score the entries of several layers; called only for evictors that name their queries."""
        return [self.observe(view) for view in views]

    @abstractmethod
    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        """Decide, after prefill, what every layer keeps."""


@dataclass(frozen=True)
class RepeatedReading(Evictor):
    """An evictor that scores the entries while the model reads the images a second time.

    The second reading follows the first in one prompt, after an instruction, and is thrown away;
    :func:`lightkv.reading.scored` makes it.
    """

    @property
    @abstractmethod
    def between(self) -> str:
        """Words between the images and their repetition."""

    @abstractmethod
    def score_repetition(self, view: LayerView, context: Tensor, repeated: Tensor) -> Tensor:
        """Scores (B, H_kv, N) float32 of one layer's entries, zero outside the context.

        Args:
            view: Layer of the prompt with the repetition, N tokens.
            context: (B, N) bool, what is repeated.
            repeated: (B, N) bool, the instruction and the repetition.
        """

    @abstractmethod
    def with_scores(self, scores: Sequence[Tensor]) -> Evictor:
        """The evictor that compresses the prompt itself, given (B, H_kv, N) of every layer."""


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

    def acts_on_pictures(self, facts: ModelFacts) -> bool:
        return any(part.acts_on_pictures(facts) for part in self.sequence)

    def picture_shares(self, layout: TokenLayout) -> Sequence[float]:
        shares = zip(*(part.picture_shares(layout) for part in self.sequence), strict=True)
        return [math.prod(row) for row in shares]

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.sequence)
