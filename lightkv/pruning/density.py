"""Density-peaks clustering of a few tokens per row (DPC-KNN)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightkv.contract.reduction import compact
from lightkv.pruning.selection import top

NOISE = 1e-12  # Share of their squared lengths up to which two points are one.


def cluster_centres(hidden: Tensor, members: Tensor, clusters: Tensor) -> Tensor:
    """Centre of the cluster that each member belongs to.

    A token's density falls with the mean squared distance to its k nearest (itself included),
    k being the number of clusters. Centres are the tokens of largest density times distance to
    the nearest denser token; every other member joins the nearest centre. Distances are divided
    by the root of the width. Ties: lowest index first; the released code breaks them by noise.

    Args:
        hidden: (B, N, D).
        members: (B, N) bool.
        clusters: (B,) int64, at least 1 where there are members.

    Returns:
        (B, N) int64 positions, -1 outside the members.
    """
    index, valid = compact(members)
    states = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))  # (B, M, D)
    distance = _distances(states) / hidden.shape[-1] ** 0.5
    distance = distance.masked_fill(~valid[:, None], torch.inf)
    near = torch.sort(distance, dim=-1).values
    slots = torch.arange(near.shape[-1], device=near.device)
    counted = slots < torch.minimum(clusters, valid.sum(1))[:, None, None]
    squares = torch.where(counted, near**2, 0).sum(-1) / clusters.clamp_min(1)[:, None]
    squares = squares.masked_fill(~valid, torch.inf)
    density = torch.exp(-squares)
    # Two tokens that are each other's nearest are equally dense: the first counts as denser.
    earlier = slots[None, :] < slots[:, None]
    mine, other = squares[:, :, None], squares[:, None, :]
    denser = (other < mine) | ((other == mine) & earlier)
    farthest = distance.masked_fill(~(valid[:, None] & valid[..., None]), 0).amax((1, 2))
    apart = distance.masked_fill(~denser, torch.inf).amin(-1)
    apart = torch.minimum(apart, farthest[:, None])
    centre = top(apart * density, valid, clusters)
    nearest = distance.masked_fill(~centre[:, None], torch.inf).argmin(-1)
    nearest = torch.where(centre, slots, nearest)
    result = torch.full((members.shape[0], members.shape[1] + 1), -1, device=hidden.device)
    where = torch.where(valid, index, members.shape[1])
    return result.scatter_(1, where, index.gather(1, nearest))[:, :-1]


def _distances(states: Tensor) -> Tensor:
    """Euclidean distances (B, M, M) float64 of states (B, M, D), by one matrix product.

    The product leaves noise where points coincide, which would break ties; distances within it
    are zero. Its halves differ in the last digits on some processors; two points are equally far
    from each other.
    """
    centred = states.double() - states.double().mean(1, keepdim=True)
    squares = (centred**2).sum(-1)
    sums = squares[:, :, None] + squares[:, None, :]
    product = centred @ centred.transpose(1, 2)
    distance = sums - (product + product.transpose(1, 2))
    return torch.where(distance > NOISE * sums, distance, 0).sqrt()
