"""Who merges with whom: bipartite matching inside groups, all groups at once.

Ties are settled the same way everywhere: of equal proposals the token that comes first in its
group wins, of equal partners the first is chosen. Likenesses are compared as they were computed:
which of two that differ by their rounding alone is the nearer one may change with the processor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.groups import Groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.similarity import cosine
from lightkv.cost.token_counts import merges


@dataclass(frozen=True)
class Pairs:
    """Merges: each source goes into its target.

    Attributes:
        source, target: (P,) int64, positions b * N + n; by group, in a group by rising feature
            divergence. Several sources may share a target; no target is a source.
    """

    source: Tensor
    target: Tensor


def merge_counts(counts: Tensor, ratio: float, *, single: bool = False) -> Tensor:
    """Merges per group: r = min(floor(rho m), floor(m / 2)) (LightKV Eq. 6).

    Args:
        counts: (G,) int64, tokens m of each group.
        ratio: Compression ratio rho, exactly as it was written; above one half it acts as one
            half.
        single: Multiply in float32, as the released code does (0.42 x 150 gives 62, not 63).
    """
    if single:
        share = torch.tensor(ratio, dtype=torch.float32, device=counts.device)
        return torch.minimum((counts.float() * share).floor().long(), counts // 2)
    exact = {count: merges(count, ratio) for count in set(counts.tolist())}
    return torch.tensor([exact[count] for count in counts.tolist()], device=counts.device)


def split_alternate(groups: Groups) -> tuple[Groups, Groups]:
    """Even members of each group are sources, odd members targets (ToMe, LightKV)."""
    sources = Groups(groups.index[:, 0::2], groups.valid[:, 0::2])
    return sources, Groups(groups.index[:, 1::2], groups.valid[:, 1::2])


def match(hidden: Tensor, sources: Groups, targets: Groups, merges: Tensor) -> Pairs:
    """Every source proposes its nearest target; the r nearest proposals of a group merge.

    Args:
        hidden: (B, N, D); compared in float32 at least.
        sources: (G, A) groups.
        targets: (G, B) groups.
        merges: (G,) int64 on the host, merges r per group.
    """
    empty = sources.index.new_zeros(0)
    if not sources.index.numel() or not targets.index.numel():
        return Pairs(empty, empty)
    flat = hidden.flatten(0, 1)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    similarity = cosine(flat[sources.index].to(wide), flat[targets.index].to(wide))
    similarity = similarity.masked_fill(~targets.valid[:, None], -torch.inf)
    # Of equal values max gives the first.
    best, choice = similarity.max(-1)  # (G, A) each, of (G, A, B)
    ranked = best.masked_fill(~sources.valid, -torch.inf)
    order = torch.argsort(ranked, dim=-1, descending=True, stable=True)
    # The host knows how many merge, so it does not wait to find out where they stand.
    merging = torch.arange(order.shape[1]) < merges[:, None]
    places = merging.flatten().nonzero()[:, 0].to(hidden.device)
    source = sources.index.gather(1, order).flatten()[places]
    target = targets.index.gather(1, choice.gather(1, order)).flatten()[places]
    return Pairs(source, target)


def reduction(layout: TokenLayout, pairs: Pairs, importance: Tensor) -> Reduction:
    """The reduction that merges these pairs; padding leaves, everything else stays.

    Args:
        layout: Layout of the (B, N) positions.
        pairs: Merges.
        importance: (B, N), weight of each token within its group's mean (LightKV Eq. 8).
    """
    length = layout.length
    tokens = torch.arange(length, device=layout.kind.device)
    representative = torch.where(layout.real, tokens, -1)
    representative.view(-1)[pairs.source] = pairs.target % length
    alone = layout.batch_size == 1  # then the host knows how many are left
    width = layout.lengths[0] - len(pairs.source) if alone else None
    return Reduction.from_groups(representative, importance, width=width)
