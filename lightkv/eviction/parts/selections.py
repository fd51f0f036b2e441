"""What goes first: from scores and a budget to the entries that stay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.contract.shapes import check_shape
from lightkv.contract.types import Checked
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.parts.protection import ends, slots

SystemText = Literal["kept", "extra", "text"]
RatioOf = Literal["vision", "all"]
BudgetLeWindow = Literal["truncate_window", "window_only", "sinks_first"]


def keep_best(score: Tensor, tier: Tensor, budget: Tensor) -> Tensor:
    """Mark the best entries: higher tier first, then higher score, then lower index.

    Scores are compared as they were computed: which of two that differ by their rounding alone is
    the higher one may change with the processor, the number of threads and the batch.

    Args:
        score: (B, G, N) float.
        tier: (B, G, N) or broadcastable, int64.
        budget: (B, G) or broadcastable, int64, number of entries to mark.

    Returns:
        (B, G, N) bool.
    """
    by_score = torch.argsort(score, dim=-1, descending=True, stable=True)
    tiers = tier.expand_as(score).gather(-1, by_score)
    order = by_score.gather(-1, torch.argsort(tiers, dim=-1, descending=True, stable=True))
    place = torch.argsort(order, dim=-1)
    return place < budget[..., None]


@dataclass(frozen=True)
class Selection(Checked, ABC):
    """Retention rule of one layer, as tiers: a higher tier outranks every score below it."""

    needs_vision: ClassVar[bool] = False
    needs_question: ClassVar[bool] = False

    @property
    def unused(self) -> int:
        """Entries of its budget that the rule leaves unused by design, at most."""
        return 0

    def check(self, facts: ModelFacts) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    def counted(self, layout: TokenLayout) -> Tensor:
        """(B, N) bool: entries that are paid from the budget."""
        return layout.real

    def shared(self, layout: TokenLayout) -> Tensor:
        """(B, N) bool: entries that the budget is a share of."""
        return self.counted(layout)

    def fixed(self, layout: TokenLayout) -> Tensor:
        """(B, N) bool: entries that the rule keeps whatever the budget."""
        return torch.zeros_like(layout.real)

    def least(self, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        """(B,) int64: entries that stay even where the budget (B,) is smaller.

        Args:
            layout: Layout of the N entries.
            budget: (B,) int64.
            protected: (B, N) bool, kept in any case.
        """
        return protected.sum(1)

    @abstractmethod
    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        """(B, N) int64, at least 0, under a budget (B,) of counted entries."""

    def keep(self, score: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        """Choose the entries that stay.

        Args:
            score: (B, N) or (B, H_kv, N).
            layout: Layout of the N entries.
            budget: (B,) int64, how many of the counted entries to keep (of each head).
            protected: (B, N) bool, kept in any case and paid from the budget.

        Returns:
            bool, of the shape of ``score``; every entry that is not counted stays.
        """
        counted = self.counted(layout)
        tiers = self.tiers(layout, budget)
        check_shape(self, "tiers", tiers, tuple(layout.kind.shape))
        tier = torch.where(protected, torch.iinfo(torch.int64).max, tiers)
        tier = torch.where(counted, tier, -1)[:, None]
        grouped = score if score.dim() == 3 else score[:, None]
        best = keep_best(grouped, tier, budget[:, None])
        always = (protected | ~counted) & layout.real
        kept = (best & counted[:, None]) | always[:, None]
        return kept if score.dim() == 3 else kept[:, 0]

    def keep_claimed(
        self, score: Tensor, claims: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor
    ) -> Tensor:
        """As :meth:`keep`, where heads compete by ``claims`` (B, H_kv, N) instead of the score.

        Raises:
            UnsupportedError: Heads don't compete under this rule.
        """
        raise UnsupportedError(
            f"heads don't compete for their entries under {type(self).__name__}, as the ranking "
            "expects; use AcrossHeads"
        )


@dataclass(frozen=True)
class ByScore(Selection):
    """The highest scores stay, whatever kind of entry they belong to."""

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return torch.zeros_like(layout.kind)


@dataclass(frozen=True)
class TextFirst(Selection):
    """Text-Prioritised Retention (TGV-KV, Eq. 10): no text leaves before all vision has left.

    Attributes:
        system: The text before the first image is "kept" and paid from the budget, kept beyond it
            ("extra"), or "text" like the question, which may be evicted.
    """

    system: SystemText = "kept"

    def counted(self, layout: TokenLayout) -> Tensor:
        extra = self.system == "extra"
        return layout.real & (layout.kind != TokenKind.SYSTEM) if extra else layout.real

    def shared(self, layout: TokenLayout) -> Tensor:
        return layout.real

    def fixed(self, layout: TokenLayout) -> Tensor:
        if self.system == "text":
            return super().fixed(layout)
        return layout.kind == TokenKind.SYSTEM

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return layout.text.long()


@dataclass(frozen=True)
class VisionOnly(Selection):
    """All text stays; only vision entries are evicted.

    Attributes:
        ratio_of: "vision": the budget is a share of the vision entries (TGV-KV, Table 8).
            "all": it is a share of all entries, of which the text takes its part first
            (ImgRand in LightKV's tables).
    """

    ratio_of: RatioOf = "vision"
    needs_vision: ClassVar[bool] = True

    def counted(self, layout: TokenLayout) -> Tensor:
        return layout.vision if self.ratio_of == "vision" else layout.real

    def fixed(self, layout: TokenLayout) -> Tensor:
        return layout.text

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return torch.zeros_like(layout.kind)


@dataclass(frozen=True)
class WindowFirst(Selection):
    """The last entries stay, then the highest scores (SnapKV and its descendants).

    Attributes:
        window: Number of last entries, counted in the budget.
        budget_le_window: What a budget not larger than the window buys. "truncate_window": the
            newest entries of the window. "sinks_first": the first ``sinks`` entries, then the
            newest. "window_only": the whole window, more than the budget.
        sinks: First entries of "sinks_first".
    """

    window: int = 64
    budget_le_window: BudgetLeWindow = "truncate_window"
    sinks: int = 4

    def check(self, facts: ModelFacts) -> None:
        if self.window < 0:
            raise InvalidValueError("window", self.window, "at least 0")
        if self.sinks < 0:
            raise InvalidValueError("sinks", self.sinks, "at least 0")

    def fixed(self, layout: TokenLayout) -> Tensor:
        return ends(layout, 0, self.window if self.budget_le_window == "window_only" else 0)

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        # Within the window the newest go first, so each entry is a tier of its own.
        newest = torch.where(ends(layout, 0, self.window), slots(layout) + 1, 0)
        if self.budget_le_window != "sinks_first":
            return newest
        sinks = ends(layout, self.sinks, 0) & (budget <= self.window)[:, None]
        return torch.where(sinks, layout.length + 1, newest)


@dataclass(frozen=True)
class WithRecent(Selection):
    """A share of the budget goes to the last entries, the rest by another rule (H2O, LOOK-M).

    Attributes:
        rule: Who gets the rest.
        share: Share of the budget that the last entries get, in [0, 1].
    """

    rule: Selection = ByScore()
    share: float = 0.5

    def check(self, facts: ModelFacts) -> None:
        self.rule.check(facts)
        if not 0 <= self.share <= 1:
            raise InvalidValueError("share", self.share, "0 to 1")

    def counted(self, layout: TokenLayout) -> Tensor:
        return self.rule.counted(layout)

    def shared(self, layout: TokenLayout) -> Tensor:
        return self.rule.shared(layout)

    def fixed(self, layout: TokenLayout) -> Tensor:
        return self.rule.fixed(layout)

    def recent(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        """(B, N) bool: the last entries that a budget (B,) buys first."""
        return ends(layout, 0, (self.share * budget.double()).long()[:, None])

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        tiers = self.rule.tiers(layout, budget)
        return torch.where(self.recent(layout, budget), tiers + layout.length + 2, tiers)
