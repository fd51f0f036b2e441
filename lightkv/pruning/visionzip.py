"""VisionZip: a few dominant vision tokens, and the others merged into a few contextual ones.

*VisionZip: Longer is Better but Not Necessary in Vision Language Models*, Yang et al., CVPR 2025,
arXiv 2412.04467.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.groups import Groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.pruning.before import BeforeDecoder, require_tokens
from lightkv.pruning.selection import Pool, needs_of, of_groups, pools, top


@register("visionzip")
@dataclass(frozen=True)
class VisionZip(BeforeDecoder):
    """Dominant tokens by class-token attention; the rest joins evenly spaced contextual tokens.

    The original also feeds the class token itself to the decoder, as one of its dominant tokens.
    A reduction can't add a token that was not there, so here all dominant tokens are patches.
    A contextual token stays at its own place in the sequence instead of after the dominant ones.

    Attributes:
        dominant: Dominant tokens per tile or image; all of a tile that has fewer.
        contextual: Contextual tokens per tile or image.
        combine: "mean" of a contextual token and all that joins it; or "sum", the released form,
            of the token and the mean of what joins it.
        merge: The "tower" states of a group are averaged and then projected, as published; or its
            "embeddings" after the projector.
        per: Each "tile" is reduced on its own, as published, or all tiles of an "image" together.
    """

    dominant: int = 54
    contextual: int = 10
    combine: Literal["mean", "sum"] = "mean"
    merge: Literal["tower", "embeddings"] = "tower"
    per: Pool = "tile"

    def needs_vision(self) -> frozenset[str]:
        """Class-token attention and keys of the vision tower, and the states that it merges."""
        states = {"features"} if self.merge == "tower" else set()
        return frozenset({"cls_attention", "keys"} | states | needs_of(self.per))

    def check(self, facts: ModelFacts) -> None:
        """Refuse numbers of tokens out of range."""
        check_count("dominant", self.dominant, 0)
        check_count("contextual", self.contextual)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image and images of fewer tokens than stay."""
        super().check_layout(layout)
        require_tokens("dominant + contextual", self.dominant + self.contextual, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Prune and merge."""
        groups = pools(view, self.per)
        attention = of_groups(view.read_vision("cls_attention"), groups)
        keys = of_groups(view.read_vision("keys"), groups).float()
        dominant = top(attention, groups.valid, torch.full_like(groups.counts, self.dominant))
        rest = groups.valid & ~dominant
        goes_to = self._targets(cosine(keys, keys), rest, groups)
        length = view.layout.length
        tokens = torch.arange(length, device=view.hidden.device)
        representative = torch.where(view.layout.real, tokens, -1)
        members = groups.index[rest]
        representative.view(-1)[members] = goes_to[rest] % length
        ones = torch.ones(view.layout.kind.shape, device=tokens.device)
        merged = Reduction.from_groups(representative, ones)
        if self.combine == "mean":
            return merged
        return _target_plus_mean(merged, representative == tokens)

    def states(self, view: LayerView, reduction: Reduction) -> Tensor | None:
        """Merged states of the tower, projected; what stays alone is the embedding it was."""
        if self.merge == "embeddings":
            return None
        merged = view.project(reduction.apply(view.read_vision("features"))).to(view.hidden)
        joined = reduction.sizes() > 1
        return torch.where(joined[..., None], merged, reduction.take(view.hidden))

    def _targets(self, similarity: Tensor, rest: Tensor, groups: Groups) -> Tensor:
        """(G, M) int64: the contextual token that each member of the rest goes to."""
        rank = rest.long().cumsum(-1) - 1
        stride = (rest.sum(-1, keepdim=True) // self.contextual).clamp_min(1)
        is_target = rest & (rank % stride == 0) & (rank // stride < self.contextual)
        nearest = similarity.masked_fill(~is_target[:, None], -torch.inf).argmax(-1)
        tokens = torch.arange(rest.shape[1], device=rest.device)
        return groups.index.gather(1, torch.where(is_target, tokens, nearest))


def _target_plus_mean(merged: Reduction, survivor: Tensor) -> Reduction:
    """Weight 1 for the survivor of each group, and 1 shared by what joined it."""
    slot = merged.target.clamp_min(0)
    joined = (merged.sizes().gather(1, slot) - 1).clamp_min(1)
    weight = torch.where(survivor, torch.ones_like(merged.weight), 1 / joined)
    return dataclasses.replace(merged, weight=torch.where(merged.target >= 0, weight, 0))
