"""One worked example per pruning method, and the rules that a single example can't show."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lightkv.contract.layout import Grid
from lightkv.contract.similarity import cosine
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError
from lightkv.pruning import DivPrune, FastV, HiPrune, HiRED, VisionZip, VisPruner
from lightkv.pruning.greedy import without_duplicates
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout
from tests.pruning.views import before, circle, kept_vision, with_rows

# ---------------------------------------------------------------- FastV


def test_fastv_keeps_what_the_last_token_attends_most() -> None:
    layout = row_layout([Grid(1, 1, 4)], system=3, text=3)
    attention = torch.zeros(10, 10)
    attention[9, 3:7] = torch.tensor([0.05, 0.02, 0.10, 0.08])
    attention[8, 3:7] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    reduction = FastV(layer=2, removed=0.5).reduce(with_rows(layout, attention, 1))
    assert reduction.index.tolist() == [[0, 1, 2, 5, 6, 7, 8, 9]]
    after = layout.select(reduction.index, reduction.valid)
    assert after.position.tolist() == reduction.index.tolist()


@pytest.mark.parametrize(("count", "removed", "left"), [(5, 0.5, 2), (7, 0.5, 4), (10, 0.75, 2)])
def test_fastv_rounds_half_to_even(count: int, removed: float, left: int) -> None:
    layout = row_layout([Grid(1, 1, count)])
    view = random_view(layout, layer=1)
    reduction = FastV(removed=removed).reduce(view)
    assert int(layout.vision[0][reduction.index[0]].sum()) == left


def test_fastv_averages_heads_after_the_causal_softmax() -> None:
    layout = row_layout([Grid(1, 4, 5)])
    view = random_view(layout, layer=1, heads=3)
    logits = view.read_attention().logits(torch.arange(layout.length)[None])[0]
    last = torch.softmax(logits[:, -1], -1).mean(0)
    best = last[layout.vision[0]].topk(10).indices.sort().values + 2
    reduction = FastV().reduce(view)
    assert reduction.index[0][layout.vision[0][reduction.index[0]]].tolist() == best.tolist()


# ---------------------------------------------------------------- HiRED


def tiles_view() -> LayerView:
    """A whole view of 2 x 2 cells and a finer grid of two such tiles side by side."""
    layout = row_layout([Grid(1, 2, 2), Grid(1, 2, 4)], system=1, between=0, text=1)
    layout = dataclasses.replace(layout, image=torch.where(layout.vision, 0, -1))
    view = before([Grid(1, 12, 1)], text=1)
    first = torch.zeros(1, layout.length)
    first[0, 1:5] = torch.tensor([0.4, 0.1, 0.35, 0.15])
    cls = torch.zeros(1, layout.length)
    cls[0, 1:5] = torch.tensor([0.1, 0.4, 0.3, 0.2])
    cls[0, 5:13] = torch.tensor([0.1, 0.8, 0.9, 0.2, 0.5, 0.3, 0.4, 0.6])
    vision = dataclasses.replace(view.vision, cls_attention=cls, first_attention=first)
    return dataclasses.replace(view, layout=layout, vision=vision)


def test_hired_gives_tiles_what_their_part_of_the_image_earns() -> None:
    """Budget 6 of 12: three for the whole view, three for the left tile, none for the right."""
    view = tiles_view()
    reduction = HiRED(kept=0.5, full=0.5).reduce(view)
    # Left tile: cells 5, 6, 9, 10 with attention .1, .8, .5, .3.
    assert reduction.index.tolist() == [[0, 2, 3, 4, 6, 9, 10, 13]]


def test_hired_as_released_cuts_the_whole_view_into_bands_and_loses_a_token() -> None:
    view = tiles_view()
    reduction = HiRED(kept=0.5, full=0.5, regions="chunk").reduce(view)
    # One token each: the best of the left tile, 6, and of the right, 7.
    assert reduction.index.tolist() == [[0, 2, 3, 4, 6, 7, 13]]


def test_hired_on_one_grid_is_a_top_k_and_drops_line_breaks() -> None:
    layout = row_layout([Grid(1, 3, 4)], system=1, text=1)
    broken = dataclasses.replace(layout, grids=((Grid(1, 3, 3),),))
    cls = torch.zeros(1, layout.length)
    cls[0, 1:13] = torch.tensor([3.0, 1, 2, 99, 6, 5, 4, 99, 9, 8, 7, 99])
    view = before([Grid(1, 1, 12)], text=1)
    vision = dataclasses.replace(view.vision, cls_attention=cls, first_attention=cls)
    view = dataclasses.replace(view, layout=broken, vision=vision)
    reduction = HiRED(kept=0.4).reduce(view)
    assert reduction.index.tolist() == [[0, 9, 10, 11, 13]]


# ---------------------------------------------------------------- DivPrune


def test_divprune_picks_the_isolated_point_first() -> None:
    vectors = circle(0, 10, 90, 100, 45)
    for kept, expected in ((0.2, [4]), (0.4, [3, 4]), (0.6, [0, 3, 4])):
        reduction = DivPrune(kept=kept).reduce(before([Grid(1, 1, 5)], vectors))
        assert kept_vision(reduction.index, 1) == [-1, *expected, 5, 6]


def test_divprune_never_picks_a_duplicate_twice_and_rounds_half_to_even() -> None:
    view = before([Grid(1, 1, 5)], circle(30, 30, 30, 30, 30))
    assert DivPrune(kept=0.5).reduce(view).new_length == 3 + 2
    assert DivPrune(kept=1.0).reduce(view).is_identity


# ---------------------------------------------------------------- VisionZip


def zip_view() -> LayerView:
    """Patches 1 to 8 with hidden state i; keys that send 3, 4 to 1 and 7, 8 to 6."""
    attention = torch.tensor([0.05, 0.30, 0.02, 0.03, 0.25, 0.10, 0.15, 0.10])
    keys = circle(0, 45, 5, 10, 45, 90, 85, 80)
    hidden = torch.arange(1.0, 9.0)[:, None]
    return before([Grid(1, 2, 4)], hidden, cls_attention=attention, keys=keys)


def test_visionzip_merges_the_rest_into_evenly_spaced_tokens() -> None:
    view = zip_view()
    reduction = VisionZip(dominant=2, contextual=2).reduce(view)
    assert kept_vision(reduction.index, 0) == [0, 1, 2, 5, 6, 9, 10]
    merged = reduction.apply(view.hidden)[0, 1:5, 0]
    assert_close(merged, torch.tensor([8 / 3, 2.0, 5.0, 7.0]))


def test_visionzip_as_released_adds_the_mean_to_its_target() -> None:
    view = zip_view()
    reduction = VisionZip(dominant=2, contextual=2, combine="sum").reduce(view)
    merged = reduction.apply(view.hidden)[0, 1:5, 0]
    assert_close(merged, torch.tensor([4.5, 2.0, 5.0, 13.5]))


# ---------------------------------------------------------------- VisPruner


@pytest.mark.parametrize(
    ("step", "kept"), [(8, [0, 2, 3, 5]), (2, [0, 2, 3, 6]), (1, [0, 2, 3, 4])]
)
def test_vispruner_removes_the_most_similar_in_rounds(step: int, kept: list[int]) -> None:
    view = before(
        [Grid(1, 2, 4)],
        cls_attention=torch.tensor([0.30, 0.05, 0.20, 0.04, 0.15, 0.06, 0.12, 0.08]),
        features=circle(0, 0, 80, 85, 170, 5, 10, 60),
    )
    reduction = VisPruner(tokens=4, important=0.5, step=step).reduce(view)
    assert kept_vision(reduction.index, 1) == [-1, *kept, 8, 9]


@pytest.mark.parametrize("wanted", range(7))
def test_vispruner_never_removes_too_many(wanted: int) -> None:
    features = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(wanted))
    candidates = torch.tensor([[True] * 6 + [False]])
    similarity, attention = cosine(features, features), torch.rand(1, 7)
    left = without_duplicates(similarity, attention, candidates, torch.tensor([wanted]), 8)
    assert int(left.sum()) == wanted
    assert not left[0, 6]


# ---------------------------------------------------------------- HiPrune


def tower_view(grid: Grid, middle: torch.Tensor, reading: torch.Tensor) -> LayerView:
    """One tile; attention received in the middle and in the reading layer."""
    received = torch.stack([middle.flatten(), reading.flatten()], -1)
    return before([grid], received=received)


@pytest.mark.parametrize(
    ("neighbours", "alpha", "kept"),
    [
        # Anchors 23 and 24 touch in the raster; 23 - 24 is moved to 0.
        ("raster", 0.6, {0, 22, 23, 24, 25, 47, 48} | set(range(567, 576))),
        ("raster", 1.0, {0, 1, 22, 23, 24, 25, 47, 48} | set(range(568, 576))),
        # On the grid 23 ends the first row and 24 starts the second.
        ("grid", 0.6, {22, 23, 47, 0, 24, 25, 48} | set(range(567, 576))),
    ],
)
def test_hiprune_keeps_anchors_neighbours_and_registers(
    neighbours: str, alpha: float, kept: set[int]
) -> None:
    middle = torch.zeros(576)
    middle[[23, 24, 0]] = torch.tensor([3.0, 2.0, 1.0])
    view = tower_view(Grid(1, 24, 24), middle, torch.arange(576.0))
    method = HiPrune(tokens=16, alpha=alpha, object_layer=1, neighbours=neighbours)  # type: ignore[arg-type]
    index = method.reduce(view).index
    assert {n for n in kept_vision(index, 1) if 0 <= n < 576} == kept


def test_hiprune_drops_the_least_attended_neighbours_beyond_the_budget() -> None:
    middle = torch.tensor([[0.0, 4, 0], [2, 9, 3], [0, 1, 0]])
    view = tower_view(Grid(1, 3, 3), middle, torch.zeros(9))
    method = HiPrune(tokens=3, alpha=1.0, object_layer=1)
    assert kept_vision(method.reduce(view).index, 1) == [-1, 1, 4, 5, 9, 10]


def test_hiprune_takes_the_ninth_of_23_layers_and_refuses_more_than_there_are() -> None:
    received = torch.zeros(9, 23)
    received[4, 8] = 1
    received[:, -1] = torch.arange(9.0)
    view = before([Grid(1, 3, 3)], received=received)
    kept = kept_vision(HiPrune(tokens=6, alpha=1.0).reduce(view).index, 1)
    assert kept == [-1, 1, 3, 4, 5, 7, 8, 9, 10]
    with pytest.raises(InvalidValueError, match="at most 23"):
        HiPrune(tokens=6, object_layer=24).reduce(view)
