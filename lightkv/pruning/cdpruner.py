"""CDPruner: a diverse set of vision tokens, conditioned on their relevance to the question.

*Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs*,
Zhang et al., NeurIPS 2025, arXiv 2506.10967.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.greedy import greedy_map
from lightkv.pruning.selection import Pool, image_groups, keep_only, needs_of, of_groups, pools


@register("cdpruner")
@dataclass(frozen=True)
class CDPruner(BeforeDecoder):
    """Greedy MAP of a determinantal point process with kernel r_i cos(i, j) r_j.

    Attributes:
        tokens: Vision tokens that stay, per tile or image; all of a tile that has fewer.
        sign: Relevance r grows with the cosine between patch and question ("positive"), or falls
            ("negative", the released code).
        theta: Weight of relevance against diversity in (0, 1); None takes r as it is.
        text_tower: CLIP checkpoint with both towers (hub id or folder), whose vision tower is the
            model's; its text tower reads the question: the text after the first image, with what
            the chat template adds to it.
        per: Each "tile" is pruned on its own, as published, or all tiles of an "image" together;
            relevance is on one scale for the whole image in both.
    """

    tokens: int = 64
    sign: Literal["negative", "positive"] = "negative"
    theta: float | None = None
    text_tower: str = "openai/clip-vit-large-patch14-336"
    per: Pool = "tile"

    def needs_vision(self) -> frozenset[str]:
        """The relevance of each patch to the question."""
        return frozenset({"text_relevance"} | needs_of(self.per))

    def reads_words(self) -> str | None:
        """The field ``text_tower``."""
        return self.text_tower

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("tokens", self.tokens)
        if self.theta is not None and not 0 < self.theta < 1:
            raise InvalidValueError("theta", self.theta, "None or between 0 and 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image or question, and images of fewer tokens than stay."""
        super().check_layout(layout)
        if not bool(layout.question.any(1).all()):
            raise InputError("CDPruner needs text after the image to tell what is relevant")
        require_tokens("tokens", self.tokens, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = pools(view, self.per)
        states = of_groups(view.hidden, groups)
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        factor = of_groups(self._relevance(view), groups).to(states.dtype)
        if self.theta is not None:
            factor = torch.exp(self.theta / (2 * (1 - self.theta)) * factor)
        kernel = factor[:, :, None] * cosine(states, states) * factor[:, None, :]
        counts = groups.counts.clamp_max(self.tokens)
        return keep_only(view.layout, groups, greedy_map(kernel, groups.valid, counts))

    def _relevance(self, view: LayerView) -> Tensor:
        """(B, N) relevance of each vision token, on one scale for all tiles of an image."""
        images = image_groups(view.layout)
        cosines = view.read_vision("text_relevance")
        scaled = relevance(of_groups(cosines, images), images.valid, self.sign)
        spread = torch.zeros_like(cosines)
        spread.view(-1)[images.index[images.valid]] = scaled[images.valid]
        return spread


def relevance(cosines: Tensor, valid: Tensor, sign: Literal["negative", "positive"]) -> Tensor:
    """Min-max relevance (G, M) in [0, 1] within each group; all 1 where no token stands out."""
    value = -cosines if sign == "negative" else cosines
    low = value.masked_fill(~valid, math.inf).amin(-1, keepdim=True)
    high = value.masked_fill(~valid, -math.inf).amax(-1, keepdim=True)
    spread = high - low
    scaled = (value - low + 1e-6) / spread.clamp_min(1e-12)
    return torch.where(spread > 0, scaled, 1)
