"""SparseVLM: raters, counts with recycling, and clusters of what is recycled."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lightkv.contract.layout import Grid
from lightkv.contract.view import PromptInputs
from lightkv.pruning import SparseVLM
from lightkv.pruning.density import _distances, cluster_centres
from lightkv.pruning.sparsevlm import TABLE, raters
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout
from tests.pruning.views import with_rows


def test_sparsevlm_raters_look_at_the_image_more_than_average() -> None:
    layout = row_layout([Grid(1, 1, 3)], system=1, text=4)
    hidden = torch.zeros(1, 8, 2)
    hidden[0, 0] = torch.tensor([50.0, 50.0])
    hidden[0, 1:4] = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    hidden[0, 4:] = torch.tensor([[2.0, 0], [0, 0.5], [1, 1], [0, 0]])
    assert raters(PromptInputs(hidden, layout)).nonzero()[:, 1].tolist() == [4, 6]


def test_sparsevlm_counts_with_recycling() -> None:
    """576 tokens at the table for 192: 300 + 9, then 200 + 4, then 110 + 3."""
    layout = row_layout([Grid(1, 24, 24)], text=5)
    inputs = PromptInputs(random_view(layout, width=8).hidden, layout)
    method, counts = SparseVLM(kept=TABLE[192]), []
    for stage, layer in enumerate(method.layers):
        view = random_view(layout, seed=stage, layer=layer, heads=1, width=8)
        reduction = method.reduce(dataclasses.replace(view, inputs=inputs))
        layout = layout.select(reduction.index, reduction.valid)
        counts.append(int(layout.vision.sum()))
    assert counts == [309, 204, 113]


def test_sparsevlm_scores_by_the_raters_rows_and_keeps_one_less_than_all() -> None:
    layout = row_layout([Grid(1, 1, 4)], system=1, text=3)
    inputs = torch.zeros(1, 8, 2)
    inputs[0, 1:5] = torch.tensor([1.0, 0])
    inputs[0, 6] = torch.tensor([3.0, 0])
    attention = torch.zeros(8, 8)
    attention[6, 1:5] = torch.tensor([0.1, 0.4, 0.2, 0.3])
    attention[7, 1:5] = torch.tensor([0.9, 0.0, 0.0, 0.0])
    view = dataclasses.replace(with_rows(layout, attention, 2), inputs=PromptInputs(inputs, layout))
    method = SparseVLM(layers=(2,), kept=(2,), recycle=False)
    assert method.reduce(view).index.tolist() == [[0, 2, 4, 5, 6, 7]]
    all_but_one = SparseVLM(layers=(2,), kept=(99,), recycle=False)
    assert all_but_one.reduce(view).index.tolist() == [[0, 2, 3, 4, 5, 6, 7]]


def test_density_peaks_find_separate_clusters() -> None:
    points = torch.tensor([[0.0], [0.1], [0.25], [5.0], [5.1], [5.3]])
    hidden = torch.cat([torch.full((2, 1), 0.1), points])[None]
    members = torch.tensor([[False, False] + [True] * 6])
    centres = cluster_centres(hidden, members, torch.tensor([2]))[0].tolist()
    assert centres == [-1, -1, 2, 2, 2, 5, 5, 5]


def test_two_points_are_equally_far_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the halves of a product differ in the last digits, as on some processors."""

    def uneven(left: Tensor, right: Tensor) -> Tensor:
        product = torch.matmul(left, right)
        return product + 1e-14 * product.triu(1)

    states = torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = _distances(states)
    monkeypatch.setattr(Tensor, "__matmul__", uneven)
    product = states.double() @ states.double().mT
    assert not torch.equal(product, product.mT)
    distance = _distances(states)
    assert torch.equal(distance, distance.mT)
    assert_close(distance, expected)


def test_sparsevlm_recycled_tokens_are_means_of_clusters() -> None:
    layout = row_layout([Grid(1, 4, 10)], text=3)
    view = random_view(layout, layer=2, width=4)
    view = dataclasses.replace(view, inputs=PromptInputs(view.hidden, layout))
    reduction = SparseVLM(layers=(2,), kept=(10,)).reduce(view)
    merged = reduction.apply(view.hidden)[0]
    assert int(layout.vision[0][reduction.index[0]].sum()) == 10 + 2
    for slot in range(reduction.new_length):
        members = reduction.target[0] == slot
        assert_close(merged[slot], view.hidden[0, members].mean(0))
    assert int((reduction.target >= 0).sum()) == layout.length - 40 + 10 + 10
