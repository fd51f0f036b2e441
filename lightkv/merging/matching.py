"""Who merges with whom: bipartite matching inside groups, all groups at once.

Ties are settled the same way everywhere: of equal proposals the token that comes first in its
group wins, of equal partners the first is chosen. Similarities are compared as computed: where two
differ by rounding only, which of them is the larger one may change with the processor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.groups import Groups
from lightkv.contract.host import on_device, on_host
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
        merged: (B,) on the host, merges in each row.
    """

    source: Tensor
    target: Tensor
    merged: NDArray[np.int64]


def merge_counts(groups: Groups, ratio: float, *, single: bool = False) -> NDArray[np.int64]:
    """Merges per group: r = min(floor(rho m), floor(m / 2)) (LightKV Eq. 6).

    Args:
        groups: (G, M), on the host; tokens m of each group.
        ratio: Compression ratio rho, exactly as it was written; above one half it acts as one
            half.
        single: Multiply in float32, as the released code does (0.42 x 150 gives 62, not 63).

    Returns:
        (G,) int64, on the host.
    """
    counts: NDArray[np.int64] = on_host(groups.valid).sum(1)
    if single:
        share = np.floor(counts.astype(np.float32) * np.float32(ratio)).astype(np.int64)
        return np.where(share < counts // 2, share, counts // 2)
    exact = {count: merges(count, ratio) for count in set(counts.tolist())}
    return np.array([exact[count] for count in counts.tolist()], np.int64)


def split_alternate(members: Tensor) -> tuple[Tensor, Tensor]:
    """Even members (G, A, ...) of each group are sources, odd ones (G, B, ...) targets.

    As in ToMe and LightKV.
    """
    return members[:, 0::2], members[:, 1::2]


def match(hidden: Tensor, groups: Groups, merging: NDArray[np.int64]) -> Pairs:
    """Every source proposes its nearest target; the r nearest proposals of a group merge.

    Args:
        hidden: (B, N, D); compared in float32 at least.
        groups: (G, M) groups, split into sources and targets by :func:`split_alternate`.
        merging: (G,) on the host, merges r per group.
    """
    sources, targets = split_alternate(groups.index)
    # The host knows how many merge: the nearest of group 0, then of group 1, and so on.
    ranks = np.arange(sources.shape[1]) < merging[:, None]
    group, rank = on_device(np.stack(ranks.nonzero()), hidden.device)
    merged = np.zeros(len(hidden), np.int64)
    np.add.at(merged, groups.row, ranks.sum(1))
    if not len(group):
        return Pairs(group, group, merged)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    states = hidden.flatten(0, 1)[groups.index].to(wide)  # (G, M, D)
    similarity = cosine(*split_alternate(states))  # (G, A, B)
    if not groups.filled:
        is_source, is_target = split_alternate(groups.valid)
        pair = is_source[:, :, None] & is_target[:, None]
        similarity = similarity.masked_fill(~pair, -torch.inf)
    # Of equal values max gives the first.
    best, nearest = similarity.max(-1)
    order = torch.argsort(best, dim=-1, descending=True, stable=True)
    proposer = order[group, rank]
    accepted = nearest[group, proposer]
    return Pairs(sources[group, proposer], targets[group, accepted], merged)


def reduction(layout: TokenLayout, pairs: Pairs, importance: Tensor) -> Reduction:
    """The reduction that merges these pairs; padding leaves, everything else stays.

    Args:
        layout: Layout of the (B, N) positions.
        pairs: Merges.
        importance: (B, N), weight of each token within its group's mean (LightKV Eq. 8).
    """
    length = layout.length
    itself = np.where(layout.arrays["position"] >= 0, np.arange(length), -1)
    representative = on_device(itself, layout.kind.device)
    representative.view(-1)[pairs.source] = pairs.target % length
    return Reduction.from_groups(
        representative,
        importance,
        counts=np.array(layout.lengths) - pairs.merged,
        whole=not layout.padded,
    )
