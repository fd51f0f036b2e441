"""What a quantity is: a name, dimensions, units, a definition, and how to read it from a layer.

A quantity is a frozen dataclass without state. While a prompt runs it is shown one layer at a
time as a :class:`Reading` and returns what is kept of that layer, so nothing larger than the
result outlives a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, TypeVar

import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError, UnknownNameError

Heads = Literal["mean", "all"]
Need = Literal["hidden", "cache", "attention"]

KINDS: Final = ("system", "vision", "text")
"""Groups of tokens: text before the image and separators; vision; text after the image."""

TOKEN_DIMS: Final = frozenset(("query", "key"))
"""Dimensions that run over the prompt."""


def kind_mask(layout: TokenLayout, kind: str) -> Tensor:
    """(B, N) bool: tokens of one of :data:`KINDS`, or every real token for "all"."""
    if kind == "all":
        return layout.real
    if kind == "vision":
        return layout.vision
    return layout.question if kind == "text" else layout.text & ~layout.question


def kind_name(kind: int) -> str:
    """Name of a :class:`~lightkv.contract.layout.TokenKind` in datasets; empty for padding."""
    return "" if kind == TokenKind.PADDING else TokenKind(kind).name.lower()


class Reading:
    """One layer while it is being probed; what several quantities need is computed once.

    Args:
        view: The layer.
        heads: "mean" averages attention over heads before anything else; "all" keeps them apart.
        model: The HuggingFace model, for quantities that read its head.
    """

    def __init__(self, view: LayerView, heads: Heads, model: Any) -> None:
        self.view = view
        self.heads = heads
        self.model = model
        self._columns: dict[str, Tensor] = {}

    @property
    def layout(self) -> TokenLayout:
        """Layout of the layer's N positions."""
        return self.view.layout

    @property
    def attention(self) -> Attention:
        """Attention of the layer."""
        return self.view.read_attention()

    def mask(self, kind: str) -> Tensor:
        """(B, N) bool: tokens of a kind, see :func:`kind_mask`."""
        return kind_mask(self.layout, kind)

    def columns(self, kind: str) -> Tensor:
        """(B, H, N) float32: attention that each key collects from queries of a kind.

        H is 1 for head means. The three kinds are read in separate passes over disjoint queries,
        so that asking for all of them costs one pass over the map.
        """
        if kind == "all":
            return torch.stack([self.columns(one) for one in KINDS]).sum(0)
        if kind not in self._columns:
            per_head = self.heads == "all"
            sums = self.attention.column_sums(self.mask(kind), per_head=per_head)
            self._columns[kind] = sums if per_head else sums[:, None]
        return self._columns[kind]

    @cached_property
    def visible(self) -> Tensor:
        """(B, N) int64: real tokens up to and including each position."""
        return self.layout.real.long().cumsum(1)

    def probabilities(self, index: Tensor) -> Tensor:
        """Attention rows (B, H or 1, T, N) of the queries at ``index`` (B, T)."""
        rows = self.attention.probabilities(index)
        return rows.mean(1, keepdim=True) if self.heads == "mean" else rows

    def drop_heads(self, values: Tensor) -> Tensor:
        """Values (B, H or 1, ...) as a quantity returns them: without H for head means."""
        return values[:, 0] if self.heads == "mean" else values


@dataclass(frozen=True)
class Quantity(ABC):
    """Base of every quantity; subclasses are either layer or record quantities.

    Class attributes:
        name: Name of the variable in the dataset.
        units: "nats", "attention", "1" for a pure number, ...
        definition: One sentence with the formula, stored with the data.
    """

    name: ClassVar[str]
    units: ClassVar[str] = "1"
    definition: ClassVar[str]
    dtype: ClassVar[str] = "float32"

    @abstractmethod
    def dims(self, heads: Heads) -> tuple[str, ...]:
        """Dimensions after (sample, layer)."""

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        """Labels of the quantity's own dimensions."""
        return {}

    def size(self, facts: ModelFacts, length: int, heads: Heads) -> int:
        """Numbers per sample and layer for a prompt of ``length`` tokens."""
        known = {"query": length, "key": length, "head": facts.heads, "dim": facts.hidden_size}
        known |= {dim: len(labels) for dim, labels in self.coordinates().items()}
        numbers = 1
        for dim in self.dims(heads):
            numbers *= known.get(dim, facts.hidden_size)
        return numbers


@dataclass(frozen=True)
class LayerQuantity(Quantity):
    """A quantity read from each layer during prefill."""

    needs: ClassVar[Need] = "hidden"

    @abstractmethod
    def measure(self, reading: Reading) -> Tensor:
        """The quantity of one layer.

        Returns:
            (B, ...) with the axes of :meth:`dims`; token axes run over the N physical positions of
            the layer and are put back to the prompt's own positions by the caller.
        """


@dataclass(frozen=True)
class RecordQuantity(Quantity):
    """A quantity read from the record of a finished run: what a method did."""

    @abstractmethod
    def read(self, record: RunRecord, layer: int) -> Tensor:
        """The quantity of one row and layer, token axes in the prompt's own positions."""


Q = TypeVar("Q", bound=Callable[[], Quantity])

QUANTITIES: dict[str, Callable[[], Quantity]] = {}


def register(factory: Q) -> Q:
    """Enter a quantity with its default parameters under its name."""
    QUANTITIES[factory().name] = factory
    return factory


def quantity(named: str | Quantity) -> Quantity:
    """A quantity by name, or the one that was passed.

    Raises:
        UnknownNameError: If no quantity has that name; the message lists the known ones.
    """
    if isinstance(named, Quantity):
        return named
    if not isinstance(named, str) or named not in QUANTITIES:
        raise UnknownNameError("quantity", named, QUANTITIES)
    return QUANTITIES[named]()


def quantities(named: str | Quantity | Iterable[str | Quantity]) -> tuple[Quantity, ...]:
    """Several quantities; one name or one quantity counts as a list of one.

    Raises:
        UnknownNameError, InvalidValueError: If one is unknown, or they are something else.
    """
    several = [named] if isinstance(named, str | Quantity) else named
    if not isinstance(several, Iterable):
        raise InvalidValueError("quantities", several, "a name, a quantity, or a list of them")
    return tuple(quantity(one) for one in several)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, D) of ``values`` (B, N, D) over marked positions (B, N); NaN where none is."""
    weight = mask.to(values.dtype)[..., None]
    return (values * weight).sum(1) / weight.sum(1)


def nan_outside(values: Tensor, mask: Tensor) -> Tensor:
    """Values with NaN where ``mask`` is False; the two broadcast."""
    return torch.where(mask, values.float(), torch.nan)
