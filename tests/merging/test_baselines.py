"""ToMe, PiToMe and ToFu: worked examples, depth rules, what holds for all of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lightkv.catalogue import method, methods
from lightkv.contract.compressor import Reducer
from lightkv.contract.groups import gather_groups
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.merging import LightKV, PiToMe, ToFu, ToMe
from lightkv.merging.energy import energies
from lightkv.merging.partition import everywhere
from tests.closeness import SINGLE, assert_close
from tests.merging.views import random_view, row_layout, row_of

FACTS = ModelFacts(layers=8, heads=4, kv_heads=4, hidden_size=6)
SIX = torch.tensor(
    [[1, 0], [0.98, 0.2], [0.95, 0.3], [0, 1], [0.1, 0.99], [-1, 0.2]], dtype=torch.float64
)


def vision_only(
    tokens: Tensor, layer: int = 0, layers: int = 8, sizes: Tensor | None = None
) -> LayerView:
    """Vision tokens in one row, with no text around them."""
    layout = row_layout([Grid(1, 1, len(tokens))], system=0, text=0)
    view = random_view(layout, layer=layer, hidden=tokens[None])
    ones = torch.ones_like(layout.kind)
    return dataclasses.replace(view, layers=layers, sizes=ones if sizes is None else sizes[None])


def outcome(method: Reducer, view: LayerView) -> tuple[Reduction, Tensor]:
    reduction = method.reduce(view)
    return reduction, reduction.apply(view.hidden)[0]


def test_tome_merges_the_two_nearest_proposals() -> None:
    tokens = torch.tensor([[1, 0], [0.9, 0.1], [0, 1], [0.2, 1], [1, 1], [-1, 0]])
    reduction, merged = outcome(ToMe((0,), (2 / 6,)), vision_only(tokens))
    assert reduction.index.tolist() == [[1, 3, 4, 5]]
    assert reduction.sizes().tolist() == [[2, 2, 1, 1]]
    expected = torch.tensor([[0.95, 0.05], [0.1, 1], [1, 1], [-1, 0]])
    assert_close(merged, expected)


def test_tome_can_weigh_by_size() -> None:
    tokens = torch.tensor([[1.0, 0], [0.8, 0]])
    view = vision_only(tokens, sizes=torch.tensor([3, 1]))
    _, merged = outcome(ToMe((0,), (0.5,), weighting="size"), view)
    assert_close(merged, torch.tensor([[0.95, 0]]))


def test_tome_is_lightkv_without_windows_and_guidance() -> None:
    view = random_view(row_layout([Grid(1, 5, 7), Grid(1, 3, 3)]))
    unguided = LightKV((0,), (1,), (0.4,), guidance="uniform", partition="global")
    ours = ToMe((0,), (0.4,)).reduce(view)
    assert torch.equal(ours.matrix(), unguided.reduce(view).matrix())


def test_pitome_energies_of_the_paper() -> None:
    view = vision_only(SIX)
    groups = gather_groups(everywhere(view.layout).labels())
    energy = energies(view.hidden, groups, 0.9)
    expected = torch.tensor([[0.157, 0.197, 0.212, -0.010, 0.007, -0.429]], dtype=torch.float64)
    assert_close(energy, expected, 5e-4, scale=1)  # as printed: three decimals
    assert energy.argsort(descending=True).tolist() == [[2, 1, 0, 4, 3, 5]]


def test_pitome_merges_inside_the_densest_cluster() -> None:
    reduction, merged = outcome(PiToMe((0,), (2 / 6,), margin=0.9), vision_only(SIX))
    assert reduction.index.tolist() == [[1, 3, 4, 5]]
    assert_close(merged[0], SIX[:3].mean(0), SINGLE)
    assert torch.equal(merged[1:], SIX[3:])


@pytest.mark.parametrize("margin", [0.5, 0.9])
def test_pitome_as_released_pulls_a_token_into_a_distant_cluster(margin: float) -> None:
    method = PiToMe((0,), (2 / 6,), form="released", margin=margin)
    reduction, merged = outcome(method, vision_only(SIX))
    assert reduction.index.tolist() == [[0, 1, 3, 5]]
    assert reduction.sizes().tolist() == [[1, 3, 1, 1]]
    expected = torch.tensor([0.6767, 0.4967], dtype=torch.float64)
    assert_close(merged[1], expected, 1e-4)


def test_pitomes_margin_falls_with_depth() -> None:
    shallow, deep = vision_only(SIX, layer=0), vision_only(SIX, layer=4)
    by_depth = PiToMe((0, 4), (0.3, 0.3))
    for view, margin in ((shallow, 0.9), (deep, 0.45)):
        fixed = PiToMe((0, 4), (0.3, 0.3), margin=margin)
        assert torch.equal(by_depth.reduce(view).matrix(), fixed.reduce(view).matrix())


def test_pitomes_shallow_stages_can_do_as_the_released_blocks_do() -> None:
    """Order of energy 2, 1, 0, 4, 3, 5: sources 2, 0, 3, targets 1, 4, 5; 2 and 3 are nearest."""
    tome = PiToMe((0,), (2 / 6,), margin=0.9, shallow="tome")
    plain = ToMe((0,), (2 / 6,), weighting="size")
    shallow = vision_only(SIX, layer=0)
    assert torch.equal(tome.reduce(shallow).matrix(), plain.reduce(shallow).matrix())
    split = PiToMe((0,), (2 / 6,), margin=0.9, shallow="split")
    reduction, merged = outcome(split, shallow)
    assert reduction.index.tolist() == [[0, 1, 4, 5]]
    assert_close(merged[1], SIX[1:3].mean(0))
    assert_close(merged[2], SIX[3:5].mean(0))
    # From the middle of the layers on, all do the same.
    for layer, protects in ((3, False), (4, True)):
        view = vision_only(SIX, layer=layer)
        for name in ("split", "tome"):
            method = PiToMe((layer,), (2 / 6,), margin=0.9, shallow=name)  # type: ignore[arg-type]
            usual = dataclasses.replace(method, shallow="protect")
            same = torch.equal(method.reduce(view).matrix(), usual.reduce(view).matrix())
            assert same == protects


@pytest.mark.parametrize("layer", range(1, 7))
def test_pitomes_margin_is_that_of_its_own_layer(layer: int) -> None:
    view = random_view(row_layout([Grid(1, 8, 8)]), layer=layer)
    view = dataclasses.replace(view, layers=8)

    def merged(margin: float | None) -> Tensor:
        return PiToMe((layer,), (0.3,), margin=margin).reduce(view).matrix()

    assert torch.equal(merged(None), merged(0.9 - 0.9 * layer / 8))
    for other in (layer - 1, layer + 1):
        assert not torch.equal(merged(None), merged(0.9 - 0.9 * other / 8))


@pytest.mark.parametrize(
    ("layers", "layer", "drops"),
    [(8, 4, True), (8, 5, False), (7, 3, True), (7, 4, False)],
)
def test_tofu_drops_sources_up_to_half_of_the_layers(layers: int, layer: int, drops: bool) -> None:
    view = vision_only(torch.tensor([[3.0, 0], [0, 1]]), layer=layer, layers=layers)
    _, merged = outcome(ToFu((layer,), (0.5,)), view)
    assert_close(merged[0], torch.tensor([0.0, 1.0] if drops else [2.846, 0.949]), 1e-3)


@pytest.mark.parametrize(
    ("tokens", "norm", "expected"),
    [
        ([[3.0, 0], [0, 1]], "mean", [2.846, 0.949]),
        ([[3.0, 0], [0, 1]], "target", [4.5, 1.5]),
        ([[0.0, 1], [3, 0]], "mean", [2.846, 0.949]),
        ([[0.0, 1], [3, 0]], "target", [1.5, 0.5]),
    ],
)
def test_tofu_merges_late_stages_by_mlerp(
    tokens: list[list[float]], norm: str, expected: list[float]
) -> None:
    view = vision_only(torch.tensor(tokens), layer=5)
    method = ToFu((5,), (0.5,), norm=norm)  # type: ignore[arg-type]
    _, merged = outcome(method, view)
    assert_close(merged[0], torch.tensor(expected), 1e-3)


@pytest.mark.parametrize(
    ("tokens", "left"), [([[3.0, 0], [0, 1]], [0, 1]), ([[0.0, 1], [3, 0]], [3, 0])]
)
def test_tofu_drops_sources_in_early_stages(tokens: list[list[float]], left: list[float]) -> None:
    reduction, kept = outcome(ToFu((3,), (0.5,)), vision_only(torch.tensor(tokens), layer=3))
    assert kept.tolist() == [left]
    assert reduction.target.tolist() == [[-1, 0]]


def test_tofu_prunes_at_the_first_and_merges_at_the_later_stages_of_the_papers_schedule() -> None:
    method = ToFu((15, 23, 31), (0.5, 0.5, 0.5))
    rules = []
    for layer in method.layers:
        view = vision_only(SIX, layer=layer, layers=40)
        rules.append("drop" if (method.reduce(view).target < 0).any() else "merge")
    assert rules == ["drop", "merge", "merge"]


@pytest.mark.parametrize("build", [ToMe, PiToMe, ToFu])
def test_batch_rows_merge_as_they_would_alone(build: type[ToMe]) -> None:
    layouts = [row_layout([Grid(1, 5, 6)]), row_layout([Grid(1, 2, 3), Grid(1, 3, 3)], text=7)]
    for layer in (0, 7):
        view = random_view(TokenLayout.stack(layouts), layer=layer, width=12)
        method = build((layer,), (0.4,))
        reduction = method.reduce(view)
        merged = reduction.apply(view.hidden)
        after = view.layout.select(reduction.index, reduction.valid)
        for row in range(2):
            alone = row_of(view, row)
            single = method.reduce(alone)
            assert_close(merged[row][after.real[row]], single.apply(alone.hidden)[0])
        assert after.vision.sum(1).tolist() == [18, 9]
        assert torch.equal(after.text.sum(1), view.layout.text.sum(1))


@pytest.mark.parametrize("build", [ToMe, PiToMe, ToFu])
def test_a_ratio_of_zero_is_the_identity(build: type[ToMe]) -> None:
    assert build((0,), (0.0,)).reduce(random_view(row_layout([Grid(1, 4, 4)]))).is_identity


@pytest.mark.parametrize("build", [ToMe, PiToMe, ToFu])
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"layers": (7,)}, "layers"),
        ({"layers": ()}, "layers"),
        ({"ratios": (0.6,)}, "ratios"),
        ({"ratios": ()}, "ratios"),
        ({"weighting": "colour"}, "weighting"),
        ({"positions": "shuffle"}, "positions"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(
    build: type[ToMe], changes: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        dataclasses.replace(build((3,), (0.5,)), **changes).check(FACTS)
    assert caught.value.name == name


def test_wrong_values_of_single_methods() -> None:
    for build, name in (
        (lambda: PiToMe((3,), (0.5,), margin=float("nan")), "margin"),
        (lambda: PiToMe((3,), (0.5,), form="guess"), "form"),  # type: ignore[arg-type]
        (lambda: PiToMe((3,), (0.5,), shallow="deep"), "shallow"),  # type: ignore[arg-type]
        (lambda: ToFu((3,), (0.5,), switch=2), "switch"),
        (lambda: ToFu((3,), (0.5,), norm="largest"), "norm"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidValueError) as caught:
            build().check(FACTS)
        assert caught.value.name == name


@pytest.mark.parametrize("build", [ToMe, PiToMe, ToFu])
def test_what_they_ask_for(build: type[ToMe]) -> None:
    method = build([1, 3], [0.5, 0.5], positions="reindex")  # type: ignore[arg-type]
    method.check(FACTS)
    assert method.stage_layers(FACTS) == (1, 3)
    assert method.attention_layers(FACTS) == ()
    assert method.position_rule() == "reindex"
    assert (method.needs_vision(), method.needs_inputs()) == (frozenset(), False)
    with pytest.raises(InputError, match="no image"):
        method.check_layout(row_layout([]))
    method.check_layout(row_layout([Grid(1, 1, 1)]))


def test_methods_by_name() -> None:
    assert {"lightkv", "tome", "pitome", "tofu", "tome-cache"} <= set(methods())
    assert method("tome", layers=(1,), ratios=(0.5,)) == ToMe((1,), (0.5,))
    with pytest.raises(UnknownNameError, match="pitome"):
        method("pitom")
