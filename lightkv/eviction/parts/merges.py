"""What evicted entries leave behind: merging their keys and values into kept ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.types import Checked
from lightkv.contract.view import ModelFacts


@dataclass(frozen=True)
class AnchorMerge(Checked, ABC):
    """Assigns every evicted entry to a kept one."""

    needs_keys: ClassVar[bool] = False

    def check(self, facts: ModelFacts) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    @abstractmethod
    def merge(
        self, keep: Tensor, layout: TokenLayout, protected: Tensor, keys: Tensor | None
    ) -> Reduction:
        """The merge of one layer.

        Args:
            keep: (B, G, N) bool, entries that stay.
            layout: Layout of the N entries.
            protected: (B, N) bool, kept for protection.
            keys: (B, H_kv, N, d) if :attr:`needs_keys`.

        Returns:
            A reduction of B * G rows that keeps exactly the entries that stay.
        """
