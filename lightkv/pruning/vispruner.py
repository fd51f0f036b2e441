"""VisPruner: vision tokens the class token attends most, and of the rest those least alike.

*Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs*,
Zhang et al., ICCV 2025, arXiv 2412.01818.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.errors import InvalidValueError
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.selection import image_groups, keep_only, of_groups, top


@register("vispruner")
@dataclass(frozen=True)
class VisPruner(BeforeDecoder):
    """Important tokens by class-token attention, diverse ones by removing duplicates.

    Attributes:
        tokens: Vision tokens that stay, per image.
        important: Share of them that is chosen by attention, rounded down.
        step: Duplicates removed per round.
    """

    tokens: int = 64
    important: float = 0.5
    step: int = 8

    def needs_vision(self) -> frozenset[str]:
        """Class-token attention and features of the vision tower."""
        return frozenset({"cls_attention", "features"})

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("tokens", self.tokens)
        check_count("step", self.step)
        if not 0 <= self.important <= 1:
            raise InvalidValueError("important", self.important, "from 0 to 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image and images of fewer tokens than stay."""
        super().check_layout(layout)
        require_tokens("tokens", self.tokens, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = image_groups(view.layout)
        attention = of_groups(view.read_vision("cls_attention"), groups)
        features = of_groups(view.read_vision("features"), groups).float()
        first = int(self.tokens * self.important)
        chosen = top(attention, groups.valid, torch.full_like(groups.counts, first))
        rest = groups.valid & ~chosen
        diverse = without_duplicates(
            cosine(features, features), attention, rest, self.tokens - first, self.step
        )
        return keep_only(view.layout, groups, chosen | diverse)


def without_duplicates(
    similarity: Tensor, attention: Tensor, candidates: Tensor, wanted: int, step: int
) -> Tensor:
    """Remove the candidates most similar to another, a few per round, until ``wanted`` are left.

    A list starts in order of falling attention. Every round its even members are compared with
    its odd ones; the q most similar leave, and the list goes on with the other even members, by
    falling similarity, followed by the odd ones. Unlike the released code, q never exceeds the
    even members or what there is to remove.

    Args:
        similarity: (G, M, M).
        attention: (G, M).
        candidates: (G, M) bool.
        wanted: Number that stays.
        step: Largest q.

    Returns:
        (G, M) bool.
    """
    ranked = attention.masked_fill(~candidates, -torch.inf)
    order = torch.argsort(ranked, dim=-1, descending=True, stable=True)
    left = candidates.sum(-1)
    groups = torch.arange(len(order), device=order.device)[:, None]
    slots = torch.arange(order.shape[1], device=order.device)
    while bool((left > wanted).any()):
        even, odd = order[:, 0::2], order[:, 1::2]
        even_valid, odd_valid = slots[0::2] < left[:, None], slots[1::2] < left[:, None]
        pairs = similarity[groups[..., None], even[:, :, None], odd[:, None, :]]
        nearest = pairs.masked_fill(~odd_valid[:, None], -torch.inf).amax(-1)
        by = torch.argsort(
            nearest.masked_fill(~even_valid, -torch.inf), dim=-1, descending=True, stable=True
        )
        evens = even_valid.sum(-1)
        leaving = torch.minimum((left - wanted).clamp(0, step), evens)
        stays = (slots[: by.shape[1]] >= leaving[:, None]) & (slots[: by.shape[1]] < evens[:, None])
        joined = torch.cat([even.gather(1, by), odd], 1)
        valid = torch.cat([stays, odd_valid], 1)
        order = joined.gather(1, torch.argsort((~valid).to(torch.int8), dim=-1, stable=True))
        left = left - leaving
    kept = torch.zeros_like(candidates)
    kept[groups.expand_as(order)[slots < left[:, None]], order[slots < left[:, None]]] = True
    return kept
