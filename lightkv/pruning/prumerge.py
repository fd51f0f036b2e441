"""PruMerge and PruMerge+: outliers of the class token's attention, with the rest merged in.

*LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models*, Shang et al., ICCV
2025, arXiv 2403.15388.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.checks import check_count, check_share
from lightkv.contract.groups import Groups
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.cost.token_counts import floor_share
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.selection import needs_of, of_groups, tile_groups, top


@dataclass(frozen=True)
class Merging(BeforeDecoder):
    """Patches that stay take in weighted neighbours; one token more stands for all others.

    Tile by tile, on the tower's output before the projector: a patch that stays becomes itself plus
    the sum of its most similar others (by the keys of the tower's last layer; staying or not, and
    as they were), each times its share of the class token's attention in that layer. The sum of all
    patches that do not stay, weighted alike, is one token more. The order is that of the image,
    where the released code sorts by attention; the extra token stands at the last patch that did
    not stay.

    Attributes:
        neighbours: Most similar others that are taken in.
        fixed: Share of the patches that stay for the class token's attention, as in the released
            code's training; None finds the outliers of each tile.
    """

    neighbours: int = 32
    fixed: float | None = None

    def needs_vision(self) -> frozenset[str]:
        """Attention and keys of the tower's last layer, its output, and its tiles."""
        return frozenset({"last_attention", "last_keys", "features"} | needs_of("tile"))

    def check(self, facts: ModelFacts) -> None:
        """Refuse values out of range."""
        check_count("neighbours", self.neighbours, 0)
        if self.fixed is not None:
            check_share("fixed", self.fixed)

    def staying(self, attention: Tensor, valid: Tensor) -> Tensor:
        """(G, M) bool: patches that stay of tiles with class-token attention (G, M)."""
        return top(attention, valid, self._count(attention, valid))

    def _count(self, attention: Tensor, valid: Tensor) -> Tensor:
        """(G,) int64: patches that stay for their attention."""
        if self.fixed is None:
            return outliers(attention, valid).sum(-1)
        sizes = valid.sum(-1).tolist()
        counts = [floor_share(self.fixed, size) for size in sizes]
        return torch.tensor(counts, device=valid.device)

    def reduce(self, view: LayerView) -> Reduction:
        """Patches that stay, and one place for all others of their tile."""
        groups, stays = self._groups_and_staying(view)
        others = groups.valid & ~stays
        last = (others.long().cumsum(-1) * others).argmax(-1, keepdim=True)  # (G, 1)
        length = view.layout.length
        tokens = torch.arange(length, device=stays.device)
        representative = torch.where(view.layout.real, tokens, -1)
        extra = groups.index.gather(1, last).expand_as(groups.index)
        representative.view(-1)[groups.index[others]] = extra[others] % length
        return Reduction.from_groups(representative, view.read_vision("last_attention"))

    def states(self, view: LayerView, reduction: Reduction) -> Tensor | None:
        """The merged states of the tower, projected."""
        groups, stays = self._groups_and_staying(view)
        features, attention, keys = (
            of_groups(view.read_vision(name), groups)
            for name in ("features", "last_attention", "last_keys")
        )
        kept, extra = merged(features, attention, keys, stays, groups.valid, self.neighbours)
        states = torch.where(stays[..., None], kept, extra[:, None])
        # Sums are in single precision, whatever the tower's.
        laid = states.new_zeros(view.read_vision("features").shape)
        laid.view(-1, laid.shape[-1])[groups.index[groups.valid]] = states[groups.valid]
        is_patch = torch.zeros(view.layout.kind.shape, dtype=torch.bool, device=laid.device)
        is_patch.view(-1)[groups.index[groups.valid]] = True
        embedded = view.project(reduction.take(laid)).to(view.hidden)
        patch = reduction.take(is_patch) & reduction.valid
        return torch.where(patch[..., None], embedded, reduction.take(view.hidden))

    def _groups_and_staying(self, view: LayerView) -> tuple[Groups, Tensor]:
        groups = tile_groups(view)
        attention = of_groups(view.read_vision("last_attention"), groups)
        return groups, self.staying(attention, groups.valid)


@register("prumerge")
@dataclass(frozen=True)
class PruMerge(Merging):
    """Outliers of the class token's attention stay; patches like them are merged into them.

    How many stay differs from tile to tile; a tile without outliers leaves the extra token alone.

    Attributes: see :class:`Merging`.
    """


@register("prumerge-plus")
@dataclass(frozen=True)
class PruMergePlus(Merging):
    """PruMerge, and every s-th patch as well, with a larger s where outliers are rarer.

    s is a third of the patches per outlier, rounded down twice; with more than a sixth of outliers
    every patch stays. The last patch of a tile is never sampled, as in the released code. A tile
    without outliers, on which that code fails, is sampled as if it had one.

    Attributes: see :class:`Merging`.
    """

    def staying(self, attention: Tensor, valid: Tensor) -> Tensor:
        """Outliers and sampled patches."""
        count = self._count(attention, valid)
        return super().staying(attention, valid) | sampled(count, valid)


def outliers(attention: Tensor, valid: Tensor) -> Tensor:
    """(G, M) bool: members above the third quartile by 1.5 interquartile ranges."""
    values = attention.double().masked_fill(~valid, torch.nan)
    low, high = (values.nanquantile(q, -1, keepdim=True) for q in (0.25, 0.75))
    return valid & (values > high + 1.5 * (high - low))


def sampled(count: Tensor, valid: Tensor) -> Tensor:
    """(G, M) bool: every s-th member but the last, s = floor(floor(M / count) / 3), at least 1."""
    sizes = valid.sum(-1)
    step = (sizes // count.clamp_min(1) // 3).clamp_min(1)
    places = torch.arange(valid.shape[1], device=valid.device)
    return valid & (places % step[:, None] == 0) & (places < sizes[:, None] - 1)


def merged(
    features: Tensor,
    attention: Tensor,
    keys: Tensor,
    stays: Tensor,
    valid: Tensor,
    neighbours: int,
) -> tuple[Tensor, Tensor]:
    """States of patches with their neighbours, and of the extra token.

    Args:
        features: (G, M, C) what is merged.
        attention: (G, M) weights; they don't sum to 1.
        keys: (G, M, d) compared by cosine.
        stays: (G, M) bool.
        valid: (G, M) bool.
        neighbours: Others that each patch takes in.

    Returns:
        (G, M, C) of every patch, and (G, C) of the extra token.
    """
    weight = torch.where(valid, attention.float(), 0)
    similarity = cosine(keys.float(), keys.float()).masked_fill(~valid[:, None], -math.inf)
    similarity.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    # (G, M, M) weights times (G, M, C) features.
    taken = _largest(similarity, neighbours) * weight[:, None]
    states = features.float() + taken @ features.float()
    rest = torch.where(stays, 0, weight)
    return states, (rest[:, None] @ features.float())[:, 0]


def _largest(values: Tensor, count: int) -> Tensor:
    """(..., M) bool: the largest finite values of each row; of equal ones the first."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    least = values.topk(min(count, values.shape[-1]), dim=-1).values[..., -1:]
    above, equal = values > least, values == least
    missing = count - above.sum(-1, keepdim=True)
    return (above | (equal & (equal.cumsum(-1) <= missing))) & (values > -math.inf)
