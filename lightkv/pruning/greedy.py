"""Choices made pick by pick or round by round, each depending on the ones before.

Such a choice has no batched form, but a pick is a few comparisons per token. So the matrix of a
group is made where the tokens are, in one product, and the picks are made on the host, for all
groups side by side: a pick takes some microseconds there, instead of several kernel launches.
Ties: lowest index first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEIGHBOURS = 32  # Most similar tokens that are looked at before a whole row is.
LEAST_GAIN = 1e-12  # A determinant grows by more than that, or by nothing.


def farthest_points(distance: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Greedy solution of the max-min diversity problem.

    The first pick is the point whose nearest other is farthest; then, again and again, the one
    whose nearest pick is farthest.

    Args:
        distance: (G, M, M).
        valid: (G, M) bool.
        counts: (G,) int64, points to pick.

    Returns:
        (G, M) bool.
    """
    itself = torch.eye(distance.shape[1], dtype=torch.bool, device=distance.device)
    # A point without any other is infinitely far from it, which is as far as can be.
    apart = distance.masked_fill(itself | ~valid[:, None], torch.inf).amin(-1)
    rows, inside, wanted = _host(distance), _host(valid), _host(counts)
    nearest = np.where(inside, _host(apart), -np.inf)
    groups = np.arange(len(rows))
    picked = np.zeros_like(inside)
    for number in range(int(wanted.max())):
        pick = nearest.argmax(-1)
        picked[groups, pick] |= number < wanted
        reach = rows[groups, pick]
        nearest = np.where(inside, reach, -np.inf) if number == 0 else np.minimum(nearest, reach)
        nearest[groups, pick] = -np.inf
    return torch.from_numpy(picked & inside).to(valid.device)


def greedy_map(kernel: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Greedy MAP inference of a determinantal point process, by incremental Cholesky.

    Args:
        kernel: (G, M, M) positive semi-definite.
        valid: (G, M) bool.
        counts: (G,) int64, items to pick.

    Returns:
        (G, M) bool.
    """
    table, inside, wanted = _host(kernel), _host(valid), _host(counts)
    groups, steps = np.arange(len(table)), int(wanted.max())
    gain = np.where(inside, table.diagonal(axis1=1, axis2=2), -np.inf)
    factor = np.zeros((len(table), steps, table.shape[1]), dtype=table.dtype)
    picked = np.zeros_like(inside)
    for step in range(steps):
        pick = gain.argmax(-1)
        picked[groups, pick] |= step < wanted
        best = gain[groups, pick][:, None]
        known = (factor[groups, :step, pick][:, None] @ factor[:, :step])[:, 0]
        # Once the kernel's rank is used up the gain is rounding noise, and nothing more is known.
        root = np.sqrt(np.where(best > LEAST_GAIN, best, np.inf))
        factor[:, step] = (table[groups, pick] - known) / root
        gain = gain - factor[:, step] ** 2
        gain[groups, pick] = -np.inf
    return torch.from_numpy(picked & inside).to(valid.device)


def without_duplicates(
    similarity: Tensor, attention: Tensor, candidates: Tensor, wanted: Tensor, step: int
) -> Tensor:
    """Remove the candidates most similar to another, a few per round, until enough are left.

    A list starts in order of falling attention. Every round its even members are compared with
    its odd ones; the q most similar leave, and the list goes on with the other even members, by
    falling similarity, followed by the odd ones. Unlike the released code, q never exceeds the
    even members or what there is to remove.

    Args:
        similarity: (G, M, M).
        attention: (G, M).
        candidates: (G, M) bool.
        wanted: (G,) int64, number that stays.
        step: Largest q.

    Returns:
        (G, M) bool.
    """
    ranked = attention.masked_fill(~candidates, -torch.inf)
    order = _host(torch.argsort(ranked, dim=-1, descending=True, stable=True))
    left, least = _host(candidates.sum(-1)), _host(wanted)
    nearest = _Nearest(similarity, order, left)
    groups = np.arange(len(order))[:, None]
    while (left > least).any():
        nearest.follow(order, left)
        slots = np.arange(order.shape[1])
        even, odd = order[:, 0::2], order[:, 1::2]
        is_even, is_odd = slots[0::2] < left[:, None], slots[1::2] < left[:, None]
        likeness = np.where(is_even, nearest.of(even, odd, is_odd), -np.inf)
        by = np.argsort(-likeness, axis=-1, kind="stable")
        evens = is_even.sum(-1)
        leaving = np.minimum(np.clip(left - least, 0, step), evens)
        places = np.arange(by.shape[1])
        stays = (places >= leaving[:, None]) & (places < evens[:, None])
        joined = np.concatenate([even[groups, by], odd], -1)
        gone = ~np.concatenate([stays, is_odd], -1)
        left = left - leaving
        order = joined[groups, np.argsort(gone, axis=-1, kind="stable")][:, : left.max()]
    kept = np.zeros(candidates.shape, dtype=bool)
    listed = np.arange(order.shape[1]) < left[:, None]
    kept[np.broadcast_to(groups, order.shape)[listed], order[listed]] = True
    return torch.from_numpy(kept).to(candidates.device)


def picks_in_turn(score: Tensor, candidates: Tensor, quota: Sequence[int]) -> Tensor:
    """Pickers take, one after the other, the free candidates of their highest score.

    Args:
        score: (B, P, N), of each picker in turn.
        candidates: (B, N) bool.
        quota: Per row, candidates that each picker takes, as long as there are some.

    Returns:
        (B, N) bool, what was taken.
    """
    scores, free = _host(score), _host(candidates).copy()
    for row, count in enumerate(quota):
        for ranking in scores[row]:
            order = np.argsort(-np.where(free[row], ranking, -np.inf), kind="stable")
            free[row, order[:count]] = False
    return candidates & ~torch.from_numpy(free).to(candidates.device)


class _Nearest:
    """Largest similarity of some tokens to some others, with the most similar ones listed.

    A token's most similar neighbours are listed once and again whenever half of the tokens have
    left; only where none of the listed is among the others is the whole row looked at.
    """

    def __init__(self, similarity: Tensor, order: NDArray[Any], left: NDArray[Any]) -> None:
        self._on_device = similarity
        self._rows = _host(similarity)
        self._groups = np.arange(len(order))
        self._listed_at = 0
        self._list(order, left)

    def follow(self, order: NDArray[Any], left: NDArray[Any]) -> None:
        """List neighbours again among the tokens left, if half of those of the last list have gone.

        Args:
            order: (G, L) tokens.
            left: (G,) how many of them count.
        """
        if 2 * left.max() <= self._listed_at:
            self._list(order, left)

    def _list(self, order: NDArray[Any], left: NDArray[Any]) -> None:
        device = self._on_device.device
        there: NDArray[Any] = np.zeros(self._rows.shape[:2], dtype=bool)
        counted = np.arange(order.shape[1]) < left[:, None]
        there[np.broadcast_to(self._groups[:, None], order.shape)[counted], order[counted]] = True
        among = torch.from_numpy(order).to(device)
        # (G, L, M) rows of the tokens left.
        rows = self._on_device.gather(1, among[..., None].expand(-1, -1, there.shape[1]))
        rows = rows.masked_fill(~torch.from_numpy(there).to(device)[:, None], -torch.inf)
        values, tokens = rows.topk(min(NEIGHBOURS, there.shape[1]), dim=-1)
        self._place = np.zeros(there.shape, dtype=np.int64)
        np.put_along_axis(self._place, order, np.arange(order.shape[1])[None], axis=1)
        self._values, self._tokens = _host(values), _host(tokens)
        self._listed_at = int(left.max())

    def of(self, even: NDArray[Any], odd: NDArray[Any], is_odd: NDArray[Any]) -> NDArray[Any]:
        """(G, E) largest similarity of each token of ``even`` to those of ``odd`` that count."""
        groups = self._groups[:, None]
        other = np.zeros(self._rows.shape[:2], dtype=bool)
        other[np.broadcast_to(groups, odd.shape)[is_odd], odd[is_odd]] = True
        place = self._place[groups, even]
        tokens = self._tokens[groups, place]  # (G, E, neighbours)
        hit = other[groups[..., None], tokens]
        first = hit.argmax(-1)
        values = np.take_along_axis(self._values[groups, place], first[..., None], -1)[..., 0]
        group, token = (~hit.any(-1)).nonzero()
        if len(group):
            whole = self._rows[group, even[group, token]]
            values[group, token] = np.where(other[group], whole, -np.inf).max(-1)
        return values


def _host(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array
