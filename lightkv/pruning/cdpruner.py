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
from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.errors import InvalidValueError
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.selection import first_argmax, image_groups, keep_only, of_groups


@register("cdpruner")
@dataclass(frozen=True)
class CDPruner(BeforeDecoder):
    """Greedy MAP of a determinantal point process with kernel r_i cos(i, j) r_j.

    Attributes:
        tokens: Vision tokens that stay, per image.
        sign: Relevance r grows with the cosine between patch and question ("positive"), or falls
            ("negative", the released code).
        theta: Weight of relevance against diversity in (0, 1); None takes r as it is.
    """

    tokens: int = 64
    sign: Literal["negative", "positive"] = "negative"
    theta: float | None = None

    def needs_vision(self) -> frozenset[str]:
        """The relevance of each patch to the question."""
        return frozenset({"text_relevance"})

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("tokens", self.tokens)
        if self.theta is not None and not 0 < self.theta < 1:
            raise InvalidValueError("theta", self.theta, "None or between 0 and 1")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image and images of fewer tokens than stay."""
        super().check_layout(layout)
        require_tokens("tokens", self.tokens, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune."""
        groups = image_groups(view.layout)
        states = of_groups(view.hidden, groups)
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        factor = relevance(
            of_groups(view.read_vision("text_relevance"), groups), groups.valid, self.sign
        ).to(states.dtype)
        if self.theta is not None:
            factor = torch.exp(self.theta / (2 * (1 - self.theta)) * factor)
        kernel = factor[:, :, None] * cosine(states, states) * factor[:, None, :]
        counts = groups.counts.clamp_max(self.tokens)
        return keep_only(view.layout, groups, greedy_map(kernel, groups.valid, counts))


def relevance(cosines: Tensor, valid: Tensor, sign: Literal["negative", "positive"]) -> Tensor:
    """Min-max relevance (G, M) in [0, 1] within each group; all 1 where no token stands out."""
    value = -cosines if sign == "negative" else cosines
    low = value.masked_fill(~valid, math.inf).amin(-1, keepdim=True)
    high = value.masked_fill(~valid, -math.inf).amax(-1, keepdim=True)
    spread = high - low
    scaled = (value - low + 1e-6) / spread.clamp_min(1e-12)
    return torch.where(spread > 0, scaled, 1)


def greedy_map(kernel: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Greedy MAP inference of a determinantal point process, by incremental Cholesky.

    Args:
        kernel: (G, M, M) positive semi-definite.
        valid: (G, M) bool.
        counts: (G,) int64, items to pick.

    Returns:
        (G, M) bool.
    """
    groups = torch.arange(len(kernel), device=kernel.device)
    steps = int(counts.max())
    gain = kernel.diagonal(dim1=1, dim2=2).masked_fill(~valid, -torch.inf).clone()
    rows = torch.zeros(
        len(kernel), steps, kernel.shape[1], dtype=kernel.dtype, device=kernel.device
    )
    chosen = torch.zeros_like(valid)
    for step in range(steps):
        pick = first_argmax(gain)
        chosen[groups, pick] |= step < counts
        # Once the kernel's rank is used up the gain is rounding noise, perhaps below zero.
        root = gain[groups, pick].clamp_min(1e-12).sqrt()
        known = (rows[groups, :step, pick][:, None] @ rows[:, :step])[:, 0]
        rows[:, step] = (kernel[groups, pick] - known) / root[:, None]
        gain = gain - rows[:, step] ** 2
        gain[groups, pick] = -torch.inf
    return chosen
