"""TGV-KV's budgets and ranking, which its ablations and its released code share.

*TGV-KV: Text-Grounded KV Eviction for Vision-Language Models*, Liu, Han, Zhang, Shao, Liu, Guan,
Wang, ICML 2026, arXiv 2606.03075.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import EntriesView
from lightkv.eviction.parts.budgets import Proportional
from lightkv.eviction.parts.rankings import TINY, Ranking, TextScope, text_queries


@dataclass(frozen=True)
class TextVision(Proportional):
    """Text-Vision Budgeting (TGV-KV, Eq. 5): attention from the question to the vision tokens."""

    needs_attention: ClassVar[bool] = True
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def queries(self, layout: TokenLayout) -> Tensor:
        return layout.question

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        # The rows that the ranking reads too.
        rows = view.read_attention().rows(view.layout.question)
        return (rows.attention.sum(1) * view.layout.vision).sum(1)


@dataclass(frozen=True)
class TextWeighted(Ranking):
    """Text-Weighted Ranking (TGV-KV, Eq. 7, 8, 9).

    Attributes:
        text_scope: Queries that rank text entries, see :func:`text_queries`.
        normalise: Let the text weights sum to 1. No effect where text and vision are not compared
            with each other.
    """

    text_scope: TextScope = "question"
    normalise: bool = True
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def queries(self, layout: TokenLayout) -> Tensor | None:
        return None if self.text_scope == "all" else text_queries(layout, self.text_scope)

    def score(self, view: EntriesView) -> Tensor:
        layout, attention = view.layout, view.read_attention()
        rows = attention.rows(layout.question)
        columns = rows.attention.sum(1)  # (B, N)
        # Eq. 7: each question token's mean attention from itself and the later ones.
        later = layout.question.flip(1).cumsum(1).flip(1).clamp_min(1)
        weight = (columns / later).gather(1, rows.index) * rows.valid  # (B, T)
        if self.normalise:
            weight = weight / weight.sum(1, keepdim=True).clamp_min(TINY)
        vision = (weight[:, None] @ rows.attention)[:, 0]  # Eq. 8
        if self.text_scope != "question":
            columns = attention.column_sums(text_queries(layout, self.text_scope))
        return torch.where(layout.vision, vision, columns)  # Eq. 9
