"""Greedy choices against the same rules written out with plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from lightkv.contract.similarity import cosine
from lightkv.pruning import greedy
from lightkv.pruning.greedy import farthest_points, greedy_map, without_duplicates


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors (G, M, D) with ties and duplicates now and then, scores (G, M), members (G, M)."""
    generator = torch.Generator().manual_seed(seed)
    groups, size, width = (int(torch.randint(2, n, (), generator=generator)) for n in (4, 40, 9))
    vectors = torch.randn(groups, size, width, generator=generator, dtype=torch.float64)
    scores = torch.rand(groups, size, generator=generator)
    if seed % 3 == 0:
        vectors = vectors.round()
        scores = (4 * scores).round()
    if seed % 4 == 0:
        vectors[:, size // 2 :] = vectors[:, : size - size // 2].clone()
    members = torch.rand(groups, size, generator=generator) < 0.8
    members[:, 0] = True
    return vectors, scores, members


def counts_of(members: torch.Tensor, seed: int) -> torch.Tensor:
    share = torch.rand(len(members), generator=torch.Generator().manual_seed(seed))
    return (members.sum(-1) * share).long()


@pytest.mark.parametrize("seed", range(60))
def test_farthest_points(seed: int) -> None:
    vectors, _, members = draw(seed)
    distance, counts = 1 - cosine(vectors, vectors), counts_of(members, seed)
    picked = farthest_points(distance, members, counts)
    for group, table in enumerate(distance.tolist()):
        there = members[group].nonzero()[:, 0].tolist()
        assert picked[group].nonzero()[:, 0].tolist() == plain_picks(
            table, there, int(counts[group])
        )


def plain_picks(table: list[list[float]], there: list[int], count: int) -> list[int]:
    """The farthest points of some."""
    selected: list[int] = []
    while len(selected) < count:
        free = [j for j in there if j not in selected]
        reach = [
            min((table[i][j] for i in selected or there if i != j), default=math.inf) for j in free
        ]
        selected.append(free[reach.index(max(reach))])
    return sorted(selected)


@pytest.mark.parametrize("seed", range(60))
def test_greedy_map_takes_the_largest_determinant_each_time(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, 9, 12, generator=generator, dtype=torch.float64)
    kernel = vectors @ vectors.transpose(1, 2)
    members = torch.rand(2, 9, generator=generator) < 0.8
    counts = counts_of(members, seed)
    picked = greedy_map(kernel, members, counts)
    for group in range(2):
        selected: list[int] = []
        there = members[group].nonzero()[:, 0].tolist()
        while len(selected) < counts[group]:
            free = [j for j in there if j not in selected]
            volumes = [
                torch.linalg.det(kernel[group][[*selected, j]][:, [*selected, j]]) for j in free
            ]
            selected.append(free[int(torch.stack(volumes).argmax())])
        assert picked[group].nonzero()[:, 0].tolist() == sorted(selected)


def test_greedy_map_goes_on_when_the_rank_is_used_up() -> None:
    """Three equal items, one of another direction: the second pick is the other one."""
    vectors = torch.tensor([[1.0, 0], [1, 0], [0, 0.5], [1, 0]])
    kernel = (vectors @ vectors.T)[None]
    everyone = torch.ones(1, 4, dtype=torch.bool)
    for count, expected in ((1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])):
        picked = greedy_map(kernel, everyone, torch.tensor([count]))
        assert picked[0].nonzero()[:, 0].tolist() == expected


def plain_rounds(
    similarity: list[list[float]], ranked: list[int], wanted: int, step: int
) -> list[int]:
    """What is left of a list after its rounds."""
    while len(ranked) > wanted:
        even, odd = ranked[0::2], ranked[1::2]
        nearest = {i: max((similarity[i][j] for j in odd), default=-math.inf) for i in even}
        order = sorted(even, key=lambda i, nearest=nearest: -nearest[i])
        ranked = order[min(step, len(ranked) - wanted, len(even)) :] + odd
    return sorted(ranked)


@pytest.mark.parametrize("neighbours", [1, 2, 32])
@pytest.mark.parametrize("seed", range(40))
def test_rounds_remove_duplicates(
    seed: int, neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "NEIGHBOURS", neighbours)
    vectors, scores, members = draw(seed)
    similarity, wanted = cosine(vectors, vectors), counts_of(members, seed)
    step = 1 + seed % 8
    left = without_duplicates(similarity, scores, members, wanted, step)
    for group, table in enumerate(similarity.tolist()):
        there = members[group].nonzero()[:, 0].tolist()
        ranked = sorted(there, key=lambda i, group=group: -float(scores[group, i]))
        expected = plain_rounds(table, ranked, int(wanted[group]), step)
        assert left[group].nonzero()[:, 0].tolist() == expected
