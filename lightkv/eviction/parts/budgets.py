"""How many entries each layer keeps.

A budget reads one number (or a few) per layer while the prompt runs, and shares out the total
once all layers are known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.shapes import check_shape
from lightkv.contract.types import Checked
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import UnsupportedError
from lightkv.eviction.parts.allocation import Allocation, Spread, allot
from lightkv.eviction.parts.protection import no_position


@dataclass(frozen=True)
class Budget(Checked, ABC):
    """Shares a total number of entries out over the layers."""

    needs_attention: ClassVar[bool] = False
    needs_vision: ClassVar[bool] = False
    needs_question: ClassVar[bool] = False
    spread: ClassVar[Spread] = "proportional"

    @property
    def unused(self) -> int:
        """Entries of a layer's request that the budget leaves unused by design, at most."""
        return 0

    def check(self, facts: ModelFacts) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    def queries(self, layout: TokenLayout) -> Tensor | None:
        """(B, N) bool: queries whose attention :meth:`strength` reads, None for all of them.

        As for :meth:`~lightkv.eviction.parts.rankings.Ranking.queries`.
        """
        return None

    @abstractmethod
    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        """What the layer says about its claim.

        Args:
            view: The layer.
            score: (B, N) or (B, H_kv, N), what the ranking made of it.

        Returns:
            (B,) float32, or (B, F) if :meth:`allocate` needs more than one number.
        """

    @abstractmethod
    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        """Wishes of all layers.

        Args:
            strengths: L results of :meth:`strength`.
            nominal: (B, L) float64, what each layer would keep under a uniform budget.
            lengths: (B, L) int64, entries of each layer that the budget counts.

        Returns:
            (B, L) float64, not rounded and not clipped; rows sum to the rows of ``nominal``.
        """

    def decide(
        self,
        strengths: Sequence[Tensor],
        nominal: Tensor,
        lengths: Tensor,
        floors: Tensor,
        redistribute: bool,
    ) -> Allocation:
        """Budgets in whole entries; ``floors`` (B, L) counts the protected ones."""
        wishes = self.allocate(strengths, nominal, lengths)
        check_shape(self, "allocate", wishes, tuple(nominal.shape))
        return allot(wishes, floors, lengths, redistribute, self.spread)


def no_strength(view: EntriesView) -> Tensor:
    """(B,) ones, for budgets that read nothing of a layer."""
    return torch.ones(view.layout.batch_size, device=view.layout.kind.device)


@dataclass(frozen=True)
class Uniform(Budget):
    """Every layer keeps the same share of its entries."""

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        return nominal


@dataclass(frozen=True)
class Proportional(Budget):
    """b_l = share of the layer's strength in all layers' strengths, times the total (Eq. 5)."""

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        strength = torch.stack(list(strengths), 1).double()
        total = strength.sum(1, keepdim=True)
        if not bool((total > 0).all()):
            raise UnsupportedError(
                f"{type(self).__name__} has nothing to share the budget out by: its attention "
                "sum is zero in every layer"
            )
        return strength / total * nominal.sum(1, keepdim=True)
