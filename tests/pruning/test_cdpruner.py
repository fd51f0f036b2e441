"""CDPruner: relevance, the kernel conditioned on it, and the greedy determinants."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from lightkv.contract.layout import Grid
from lightkv.pruning import CDPruner
from lightkv.pruning.cdpruner import relevance
from lightkv.pruning.greedy import greedy_map
from tests.closeness import assert_close
from tests.pruning.views import before, circle, kept_vision


@pytest.mark.parametrize(("sign", "kept"), [("negative", [1, 2]), ("positive", [0, 3])])
def test_cdpruner_follows_the_sign_of_relevance(sign: str, kept: list[int]) -> None:
    view = before(
        [Grid(1, 2, 2)],
        circle(0, 5, 60, 90),
        text_relevance=torch.tensor([0.20, 0.18, 0.16, 0.22], dtype=torch.float64),
    )
    reduction = CDPruner(tokens=2, sign=sign).reduce(view)  # type: ignore[arg-type]
    assert kept_vision(reduction.index, 1) == [-1, *kept, 4, 5]


def test_cdpruner_relevance_is_a_min_max_per_image() -> None:
    cosines = torch.tensor([[0.20, 0.18, 0.16, 0.22], [0.5, 0.5, 9.0, 9.0]])
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    shares = relevance(cosines, valid, "negative")
    assert_close(shares[0], torch.tensor([1 / 3, 2 / 3, 1.0, 0.0]), 1e-4)
    assert shares[1, :2].tolist() == [1, 1]
    assert_close(
        relevance(cosines, valid, "positive")[0], torch.tensor([2 / 3, 1 / 3, 0.0, 1.0]), 1e-4
    )


def test_cdpruner_greedy_map_equals_the_determinants() -> None:
    """Each pick maximises the determinant of the chosen submatrix, beyond the rank too."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    kernel = vectors @ vectors.T
    valid = torch.ones(1, 7, dtype=torch.bool)
    picks: list[int] = []
    for count in range(1, 6):
        dets = [
            -1.0 if j in picks else float(torch.linalg.det(kernel[[*picks, j]][:, [*picks, j]]))
            for j in range(7)
        ]
        picks.append(max(range(7), key=dets.__getitem__))
        selected = greedy_map(kernel[None], valid, torch.tensor([count]))
        assert selected[0].nonzero()[:, 0].tolist() == sorted(picks)
    assert int(greedy_map(kernel[None], valid, torch.tensor([7])).sum()) == 7


@pytest.mark.parametrize("theta", [None, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("sign", ["negative", "positive"])
def test_cdpruner_conditions_the_kernel_on_relevance(
    theta: float | None, sign: Literal["negative", "positive"]
) -> None:
    """Picks maximise the determinant of diag(w) S diag(w), w = r or exp(θ r / 2(1 − θ))."""
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        cosines = torch.rand(6, generator=generator, dtype=torch.float64)
        values = [float(c) if sign == "positive" else -float(c) for c in cosines]
        weights = [(v - min(values) + 1e-6) / (max(values) - min(values)) for v in values]
        if theta is not None:
            weights = [math.exp(theta * w / (2 * (1 - theta))) for w in weights]
        unit = states / states.norm(dim=1, keepdim=True)
        kernel = unit @ unit.T * torch.tensor(weights)[:, None] * torch.tensor(weights)
        picks: list[int] = []
        for _ in range(3):
            left = [j for j in range(6) if j not in picks]
            picks.append(max(left, key=lambda j: float(kernel[[*picks, j]][:, [*picks, j]].det())))
        view = before([Grid(1, 2, 3)], states, text_relevance=cosines)
        reduction = CDPruner(tokens=3, sign=sign, theta=theta).reduce(view)
        assert kept_vision(reduction.index, 1) == [-1, *sorted(picks), 6, 7]
