"""AirCache: vision entries by key text tokens.

*AirCache: Activating Inter-modal Relevancy KV Cache Compression for Efficient Large
Vision-Language Model Inference*, Huang et al., ICCV 2025, arXiv 2503.23956. No code was released;
what the paper leaves open is an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.protection import no_position
from lightkv.eviction.parts.rankings import TINY, Ranking, group_heads, text_queries
from lightkv.eviction.parts.selections import VisionOnly

EliteScope = Literal["question", "text"]
LayerScaling = Literal["mean", "minmax", "softmax"]
NegativeSkewness = Literal["clamp", "shift", "absolute"]


@dataclass(frozen=True)
class EliteText(Ranking):
    """Vision entries by attention from the key text tokens (AirCache, arXiv 2503.23956).

    Among text tokens alone, the elite are those that the last one attends to nearly as much as to
    its favourite. Their attention is renormalised over vision and elite keys, in each head, and
    averaged over the elite.

    Attributes:
        alpha: Share of the largest weight that makes an elite token, in (0, 1].
        text_scope: "question" for text after the image, "text" for all text.
        per_head: Score each KV head on its own instead of the mean over all heads.
        elite_per_head: Let every query head have an elite of its own, instead of one by the mean
            over heads of the attention among text tokens.
    """

    alpha: float = 0.9
    text_scope: EliteScope = "question"
    per_head: bool = False
    elite_per_head: bool = False
    needs_vision: ClassVar[bool] = True
    needs_question: ClassVar[bool] = True

    def check(self, facts: ModelFacts) -> None:
        if not 0 < self.alpha <= 1:
            raise InvalidValueError("alpha", self.alpha, "above 0, at most 1")

    def queries(self, layout: TokenLayout) -> Tensor:
        return text_queries(layout, self.text_scope)

    def score(self, view: EntriesView) -> Tensor:
        attention, vision = view.read_attention(), view.layout.vision
        elite = self.elite(view)  # (B, 1 or H, N)
        seen = (vision[:, None] | elite)[:, :, None]
        shape = (attention.batch_size, attention.heads, attention.length)
        total = torch.zeros(shape, device=attention.device)
        for index, valid in attention.blocks(elite.any(1)):
            where = index[:, None].expand(-1, elite.shape[1], -1)  # (B, 1 or H, T)
            votes = elite.gather(2, where) & valid[:, None]  # (B, 1 or H, T)
            shares = attention.probabilities(index) * seen  # (B, H, T, N)
            shares = shares / shares.sum(-1, keepdim=True).clamp_min(TINY)
            total += (shares * votes[..., None]).sum(2)
        scores = total / elite.sum(2, keepdim=True).clamp_min(1) * vision[:, None]
        return group_heads(scores, view) if self.per_head else scores.mean(1)

    def elite(self, view: EntriesView) -> Tensor:
        """(B, H, N) bool, the text tokens that vote in each head; (B, 1, N) where heads agree."""
        text = text_queries(view.layout, self.text_scope)
        last = text & (text.flip(1).cumsum(1).flip(1) == 1)
        weight = view.read_attention().column_sums(last, per_head=True) * text[:, None]
        # The softmax among text tokens alone: a head that hardly looks at them counts as much as
        # any other.
        share = weight / weight.sum(2, keepdim=True).clamp_min(TINY)
        if not self.elite_per_head:
            share = share.mean(1, keepdim=True)
        return text[:, None] & (share >= self.alpha * share.amax(2, keepdim=True))


@dataclass(frozen=True)
class StrengthSkewness(Budget):
    """Half by strength, half by skewness of the vision scores (AirCache, arXiv 2503.23956).

    Both are scaled over the layers to a mean of 1.

    Attributes:
        normalisation: How: "mean" divides by the mean, "minmax" spreads them from 0 to the largest
            before, "softmax" takes the softmax over the layers.
        negative_skewness: What a layer with more small scores than large ones claims: "clamp"
            nothing, "absolute" as much as its mirror image, "shift" what it is above the lowest.
    """

    normalisation: LayerScaling = "mean"
    negative_skewness: NegativeSkewness = "clamp"
    needs_vision: ClassVar[bool] = True

    def check(self, facts: ModelFacts) -> None:
        if self.negative_skewness == "shift" and self.normalisation != "mean":
            # The others don't change under a shift.
            allowed = "'clamp' or 'absolute' where normalisation is not 'mean'"
            raise InvalidValueError("negative_skewness", self.negative_skewness, allowed)

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def strength(self, view: EntriesView, score: Tensor) -> Tensor:
        """(B, 2) float32: sum and sample skewness of the vision scores, mean over heads."""
        vision = view.layout.vision
        value = (score if score.dim() == 2 else score.mean(1)).double() * vision
        count = vision.sum(1).double()
        mean = value.sum(1) / count.clamp_min(1)
        spread = torch.where(vision, value - mean[:, None], 0)
        deviation = (spread.square().sum(1) / (count - 1).clamp_min(1)).sqrt()
        cubes = (spread / deviation.clamp_min(1e-30)[:, None]).pow(3).sum(1)
        skewness = count / ((count - 1) * (count - 2)).clamp_min(1) * cubes
        return torch.stack([value.sum(1), skewness], 1).float()

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        strength, skewness = torch.stack(list(strengths), 1).double().unbind(2)  # (B, L) each
        if self.negative_skewness == "clamp":
            skewness = skewness.clamp_min(0)
        elif self.negative_skewness == "absolute":
            skewness = skewness.abs()
        else:
            skewness = skewness - skewness.amin(1, keepdim=True).clamp_max(0)
        claim = self._scaled(strength) + self._scaled(skewness)
        # Layers may differ in length: the claims are shares of the total, not factors.
        wishes = claim * nominal
        return wishes / wishes.sum(1, keepdim=True) * nominal.sum(1, keepdim=True)

    def _scaled(self, values: Tensor) -> Tensor:
        """(B, L) not negative, with a mean of 1."""
        if self.normalisation == "softmax":
            return values.shape[1] * torch.softmax(values, 1)
        if self.normalisation == "minmax":
            values = values - values.amin(1, keepdim=True)
        mean = values.mean(1, keepdim=True)
        return torch.where(mean > 0, values / mean.clamp_min(1e-30), 1)


@register("aircache")
def aircache(
    retention: float,
    alpha: float = 0.9,
    text_scope: EliteScope = "question",
    per_head: bool = False,
    elite_per_head: bool = False,
    normalisation: LayerScaling = "mean",
    negative_skewness: NegativeSkewness = "clamp",
) -> Evicting:
    """AirCache: vision entries by key text tokens; the ratio counts vision entries."""
    budget = StrengthSkewness(normalisation, negative_skewness)
    ranking = EliteText(alpha, text_scope, per_head, elite_per_head)
    return Evicting(budget, ranking, VisionOnly(), retention)
