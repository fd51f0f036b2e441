"""Interventions for causal claims: cut attention between kinds of tokens, swap cache entries.

An intervention changes what a model computes in order to see what depends on it; it compresses
nothing. It says which layers it acts on, and the graph asks it there and nowhere else.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import Checked
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError

Queries = Literal["text", "vision", "last"]
Keys = Literal["vision", "text", "system"]


@dataclass(frozen=True)
class HiddenPairs:
    """Pairs that attention may not connect: every marked query with every marked key but itself.

    Attributes:
        queries: (B, N) bool.
        keys: (B, N) bool.
        generated: Whether tokens generated later count as marked queries.
        heads: Query heads that are concerned, None for all.
    """

    queries: Tensor
    keys: Tensor
    generated: bool
    heads: tuple[int, ...] | None = None

    def matrix(self, heads: int) -> Tensor:
        """(B, 1 or H, N, N) bool of a layer with H = ``heads`` query heads.

        A token always sees itself, so that no row of attention is empty.
        """
        length = self.keys.shape[1]
        itself = torch.eye(length, dtype=torch.bool, device=self.keys.device)
        # (B, 1, N, N): who does not see whom
        pairs = (self.queries[:, :, None] & self.keys[:, None, :] & ~itself)[:, None]
        return pairs if self.heads is None else pairs & self._concerned(heads)[..., None]

    def _concerned(self, heads: int) -> Tensor:
        """(1, H, 1) bool: heads that are concerned."""
        marked = torch.zeros(1, heads, 1, dtype=torch.bool, device=self.keys.device)
        marked[:, list(range(heads) if self.heads is None else self.heads)] = True
        return marked

    def entries(self, position: Tensor, layout: TokenLayout, heads: int) -> Tensor:
        """Which cache entries are hidden from generated tokens.

        Args:
            position: (B, G, K) int64, place of each entry's token in its row.
            layout: Of the prompts, (B, N).
            heads: Query heads H of a layer.

        Returns:
            (B, 1 or H, K) bool; 1 where it is the same for all heads.
        """
        # Marks by a token's place among the real ones of its row, whatever is masked before it.
        count = torch.zeros_like(layout.position)
        count.scatter_add_(1, layout.position.clamp_min(0), (self.keys & layout.real).long())
        inside = (position >= 0) & (position < layout.length)
        where = position.clamp(0, layout.length - 1)
        marked = (count > 0)[:, None].expand(-1, position.shape[1], -1)
        hidden = marked.gather(2, where) & inside
        groups = hidden.shape[1]
        if groups > 1:
            hidden = hidden.repeat_interleave(heads // groups, 1)
        return hidden if self.heads is None else hidden & self._concerned(heads)


@dataclass(frozen=True)
class Intervention(Checked, ABC):
    """Base of every intervention.

    Attributes:
        layers: 0-based decoder layers that it acts on.
    """

    layers: tuple[int, ...]
    swaps: ClassVar[bool] = False
    """Whether :meth:`patch` may change anything."""

    def check(self, facts: ModelFacts) -> None:
        """Validate against a model.

        Raises:
            InvalidValueError: If a layer does not exist, or there is none.
        """
        outside = [layer for layer in self.layers if not 0 <= layer < facts.layers]
        if outside or not self.layers:
            allowed = f"at least one layer, from 0 to {facts.layers - 1}"
            raise InvalidValueError("layers", self.layers, allowed)

    def check_layout(self, layout: TokenLayout) -> None:
        """Validate against a prompt; raises :class:`InputError`."""

    def hides(self, layout: TokenLayout) -> HiddenPairs | None:
        """Attention that the layers may not pay, None if they may pay all."""
        return None

    def patch(
        self, layer: int, layout: TokenLayout, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Keys and values (B, H_kv, N, d) that take the place of a layer's own, None for no change.

        Every query of the layer attends to them, and they stay in the cache.
        """
        return None


@dataclass(frozen=True)
class Knockout(Intervention):
    """Attention knock-out (Geva et al., EMNLP 2023): some queries can't see some keys.

    Attributes:
        source: Queries that go blind: "text" (all text after the image), "vision", or "last" (the
            last token of the prompt). For "text" and "last" generated tokens go blind as well.
        target: Keys that they can't see: "vision", "text" or "system".
        heads: Query heads that go blind, 0-based; None for all of the layers.
    """

    source: Queries = "text"
    target: Keys = "vision"
    heads: tuple[int, ...] | None = None

    def check(self, facts: ModelFacts) -> None:
        super().check(facts)
        heads = range(facts.heads) if self.heads is None else self.heads
        once = len(set(heads)) == len(heads) > 0
        if not once or not all(0 <= head < facts.heads for head in heads):
            allowed = f"at least one head, each once, from 0 to {facts.heads - 1}"
            raise InvalidValueError("heads", self.heads, allowed)

    def hides(self, layout: TokenLayout) -> HiddenPairs:
        if self.source == "vision":
            queries = layout.vision
        elif self.source == "text":
            queries = layout.question
        else:
            queries = torch.zeros_like(layout.vision)
            queries[:, -1] = True
        system = layout.text & ~layout.question
        keys = {"vision": layout.vision, "text": layout.question, "system": system}[self.target]
        return HiddenPairs(queries, keys, self.source != "vision", self.heads)


@dataclass(frozen=True, repr=False, eq=False)
class KVPatch(Intervention):
    """The vision entries of some layers taken from another run of prompts of the same shape.

    Attributes:
        keys, values: By layer the donors' cache entries (B, H_kv, N, d) after prefill.
        donors: Layout of the donors.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    donors: TokenLayout
    swaps: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"KVPatch(layers={self.layers})"

    def check(self, facts: ModelFacts) -> None:
        super().check(facts)
        missing = [layer for layer in self.layers if layer not in self.keys]
        if missing:
            raise InvalidValueError("layers", missing, f"layers of the donors, {list(self.keys)}")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse prompts whose vision tokens are not where the donors' are.

        Raises:
            InputError: If they are not; keys carry their position and can't be moved.
        """
        ours = torch.where(layout.vision, layout.position, -1)
        theirs = torch.where(self.donors.vision, self.donors.position, -1).to(ours.device)
        if ours.shape != theirs.shape or not torch.equal(ours, theirs):
            raise InputError(
                "the vision tokens of donors and receivers are not at the same positions; use "
                "prompts of the same question and images of the same size"
            )

    def patch(
        self, layer: int, layout: TokenLayout, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        theirs = self.keys[layer]
        if theirs.shape != keys.shape:
            raise UnsupportedError(
                f"layer {layer} holds {tuple(keys.shape)} keys, the donors' {tuple(theirs.shape)}: "
                "entries can't be swapped after a merging stage or between batches of other sizes"
            )
        where = layout.vision[:, None, :, None]
        return torch.where(where, theirs, keys), torch.where(where, self.values[layer], values)


def check_interventions(
    interventions: Sequence[Intervention], facts: ModelFacts, layout: TokenLayout
) -> None:
    """Validate every intervention against the model and the prompts.

    Raises:
        InputError: If an intervention does not fit the prompts.
        InvalidValueError: If a layer or head does not exist.
    """
    for one in interventions:
        one.check(facts)
        one.check_layout(layout)
