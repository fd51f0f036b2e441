"""AirCache: vision entries by key text tokens.

*AirCache: Activating Inter-modal Relevancy KV Cache Compression for Efficient Large
Vision-Language Model Inference*, Huang et al., ICCV 2025, arXiv 2503.23956. No code was released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.registry import register
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.rankings import TINY, Ranking, TextScope, text_queries
from lightkv.eviction.parts.selections import VisionOnly


@dataclass(frozen=True)
class EliteText(Ranking):
    """Vision entries by attention from the key text tokens (AirCache, arXiv 2503.23956).

    The elite are the text tokens that the last one attends to nearly as much as to its favourite.
    Their attention is renormalised over vision and elite keys, in each head, and averaged.  No
    code was released; the elite set is shared by the heads.

    Attributes:
        alpha: Share of the largest weight that makes an elite token, in (0, 1].
        text_scope: "question" for text after the image, "text" for all text.
    """

    alpha: float = 0.9
    text_scope: TextScope = "question"
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def check(self, facts: ModelFacts) -> None:
        if not 0 < self.alpha <= 1:
            raise InvalidValueError("alpha", self.alpha, "above 0, at most 1")
        if self.text_scope not in ("question", "text"):
            raise InvalidValueError("text_scope", self.text_scope, "'question' or 'text'")

    def score(self, view: LayerView) -> Tensor:
        attention, vision = view.read_attention(), view.layout.vision
        elite = self.elite(view)
        seen = (vision | elite)[:, None, None]
        total = torch.zeros(vision.shape, device=attention.device)
        for index, valid in attention.blocks(elite):
            shares = attention.probabilities(index) * seen
            shares = shares / shares.sum(-1, keepdim=True).clamp_min(TINY)
            total += (shares.mean(1) * valid[..., None]).sum(1)
        return total / elite.sum(1, keepdim=True).clamp_min(1) * vision

    def elite(self, view: LayerView) -> Tensor:
        """(B, N) bool: the text tokens that vote."""
        text = text_queries(view.layout, self.text_scope)
        last = text & (text.flip(1).cumsum(1).flip(1) == 1)
        weight = view.read_attention().column_sums(last) * text
        return text & (weight >= self.alpha * weight.amax(1, keepdim=True))


@dataclass(frozen=True)
class StrengthSkewness(Budget):
    """Half by strength, half by skewness of the vision scores (AirCache, arXiv 2503.23956).

    No code was released.  Both are scaled to a mean of 1 over the layers; negative skewness
    counts as none.
    """

    needs_vision: ClassVar[bool] = True

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        vision = view.layout.vision
        value = (score if score.dim() == 2 else score.mean(1)).double() * vision
        count = vision.sum(1).double()
        mean = value.sum(1) / count.clamp_min(1)
        spread = torch.where(vision, value - mean[:, None], 0)
        deviation = (spread.square().sum(1) / (count - 1).clamp_min(1)).sqrt()
        cubes = (spread / deviation.clamp_min(1e-30)[:, None]).pow(3).sum(1)
        skewness = count / ((count - 1) * (count - 2)).clamp_min(1) * cubes
        return torch.stack([value.sum(1), skewness.clamp_min(0)], 1).float()

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        claims = torch.stack(list(strengths), 1).double()  # (B, L, 2)
        mean = claims.mean(1, keepdim=True)
        scaled = torch.where(mean > 0, claims / mean.clamp_min(1e-30), 1)
        return scaled.mean(2) * nominal


@register("aircache")
def aircache(retention: float, alpha: float = 0.9) -> Evicting:
    """AirCache: vision entries by key text tokens; the ratio counts vision entries."""
    return Evicting(StrengthSkewness(), EliteText(alpha), VisionOnly(), retention)
