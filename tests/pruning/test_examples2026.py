"""DART, PyramidDrop and PruMerge: worked examples, and the rules written out with plain loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.rotary import rotate
from lightkv.contract.serving import rotary_of
from lightkv.contract.view import LayerView, PromptInputs
from lightkv.pruning import DART, PruMerge, PruMergePlus, PyramidDrop, SparseVLM, VisionZip
from lightkv.pruning.prumerge import outliers
from lightkv.pruning.sparsevlm import TABLE_PLUS, sparsevlm_plus
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout
from tests.pruning.views import before, circle

# ---------------------------------------------------------------- DART


def dart_view(states: Tensor, norms: list[float], layout: TokenLayout) -> LayerView:
    keys = torch.zeros(1, 2, layout.length, 1)
    keys[0, :, :, 0] = torch.tensor(norms) / 2
    return dataclasses.replace(
        random_view(layout, layer=1),
        hidden=states[None].float(),
        keys=keys,
        final_norm=lambda hidden: hidden,
    )


@pytest.mark.parametrize(
    ("removed", "order", "kept"),
    [
        (0.33, (1, 0), [2, 4, 5, 6, 7]),
        (0.5, (1, 0), [2, 5, 7]),
        (0.5, None, [2, 5, 7]),
        (0.99, None, [2]),
    ],
)
def test_dart_pivots_take_what_is_least_like_them(
    removed: float, order: tuple[int, ...] | None, kept: list[int]
) -> None:
    layout = row_layout([Grid(1, 2, 3)], system=2, text=2)
    states = circle(0, 0, 0, 10, 90, 100, 45, 180, 0, 60)
    view = dart_view(states, [9, 9, 5, 1, 1, 2, 1, 1, 4, 1], layout)
    method = DART(removed=removed, vision_pivots=1, text_pivots=1, order=order)
    index = method.reduce(view).index[0].tolist()
    assert index == [0, 1, *kept, 8, 9]


@pytest.mark.parametrize("seed", range(20))
def test_dart_against_plain_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layout = row_layout([Grid(1, 3, 5), Grid(1, 2, 4)], system=2, text=6)
    states = torch.randn(layout.length, 5, generator=generator)
    norms = torch.rand(layout.length, generator=generator).tolist()
    removed = (0.3, 0.5, 0.8)[seed % 3]
    method = DART(removed=removed, vision_pivots=3, text_pivots=2)
    vision = layout.vision[0].nonzero()[:, 0].tolist()
    words = range(vision[-1] + 1, layout.length)
    first = sorted(vision, key=lambda n: -norms[n])[:3]
    pivots = first + sorted(words, key=lambda n: -norms[n])[:2]
    taken = set(first)
    for pivot in pivots:
        free = [n for n in vision if n not in taken]
        cosines = torch.cosine_similarity(states[pivot][None], states[free])
        by_cosine = sorted(range(len(free)), key=lambda i, c=cosines: float(c[i]))
        taken |= {free[i] for i in by_cosine[: int(23 * (1 - removed) / 5)]}
    index = method.reduce(dart_view(states, norms, layout)).index[0].tolist()
    assert [n for n in index if n in vision] == sorted(taken)


def test_dart_counts_exactly_or_as_the_released_code() -> None:
    layout = row_layout([Grid(1, 5, 8)], text=2)
    states = torch.randn(layout.length, 3, generator=torch.Generator().manual_seed(0))
    view = dart_view(states, list(range(layout.length)), layout)  # type: ignore[arg-type]
    for counting, left in (("exact", 9), ("float64", 7)):
        method = DART(removed=0.8, vision_pivots=1, text_pivots=1, counting=counting)  # type: ignore[arg-type]
        assert method.reduce(view).new_length == layout.length - 40 + left


# ---------------------------------------------------------------- PyramidDrop


def test_pyramiddrop_keeps_what_the_last_token_attends() -> None:
    layout = row_layout([Grid(1, 2, 4)], system=1, text=2)
    keys = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0, 0.7, 0.4, 0.6, 1]).view(1, 1, 11, 1)
    view = dataclasses.replace(
        random_view(layout, layer=7),
        layers=32,
        attention=ProjectedAttention(torch.ones_like(keys), keys, 1.0),
        inputs=PromptInputs(torch.zeros(1, 11, 1), layout),
    )
    assert PyramidDrop().reduce(view).index.tolist() == [[0, 2, 5, 7, 8, 9, 10]]


def test_pyramiddrop_counts_shares_of_the_first_vision_tokens() -> None:
    layout = row_layout([Grid(1, 24, 24)])
    inputs = PromptInputs(torch.zeros(1, layout.length, 1), layout)
    method, counts = PyramidDrop(), []
    for layer in (7, 15, 23):
        view = dataclasses.replace(random_view(layout, layer=layer, heads=1), layers=32)
        reduction = method.reduce(dataclasses.replace(view, inputs=inputs))
        layout = layout.select(reduction.index, reduction.valid)
        counts.append(int(layout.vision.sum()))
    assert counts == [288, 144, 72]
    assert PyramidDrop().stage_layers_of(32) == (7, 15, 23)
    assert PyramidDrop().stage_layers_of(28) == (6, 13, 20)


# ---------------------------------------------------------------- PruMerge


def peaked(count: int) -> Tensor:
    """Attention of 576 patches, nearly flat, with as many outliers."""
    attention = 1e-3 + 1e-6 * torch.arange(576.0)
    attention[torch.arange(count) * (100 if count == 6 else 1)] += 0.01
    return attention


def tower(attention: Tensor, side: int = 24) -> LayerView:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(side**2, 6, generator=generator)
    keys = torch.randn(side**2, 4, generator=generator)
    view = before(
        [Grid(1, side, side)], last_attention=attention, last_keys=keys, features=features
    )
    assert view.vision is not None
    vision = dataclasses.replace(view.vision, project=lambda states: states.tanh())
    return dataclasses.replace(view, vision=vision)


@pytest.mark.parametrize(
    ("count", "plain", "plus"), [(6, 7, 24), (60, 61, 233), (110, 111, 576), (0, 1, 4)]
)
def test_prumerge_finds_how_many_stay(count: int, plain: int, plus: int) -> None:
    """With no outlier the extra token alone stays, or every 192nd patch and the extra one."""
    view = tower(peaked(count))
    for method, left in ((PruMerge(), plain), (PruMergePlus(), plus)):
        reduction = method.reduce(view)
        assert int(view.layout.vision[0][reduction.index[0]].sum()) == left


def test_outliers_lie_above_the_quartiles() -> None:
    values = torch.tensor([[1.0, 2, 3, 4, 10, 99], [1, 2, 3, 4, 6.9, 7.1]])
    valid = torch.tensor([[True] * 5 + [False], [True] * 6])
    # First row without its last: quartiles 2 and 4, so above 7. Second: 2.25 and 6.175.
    assert outliers(values, valid).tolist() == [[False] * 4 + [True, False], [False] * 6]


@pytest.mark.parametrize("neighbours", [0, 3, 200])
def test_prumerge_takes_in_neighbours_and_sums_the_rest(neighbours: int) -> None:
    attention = torch.rand(81, generator=torch.Generator().manual_seed(1))
    view = tower(attention, side=9)
    assert view.vision is not None
    method = PruMerge(neighbours=neighbours, fixed=0.2)
    reduction = method.reduce(view)
    states = method.states(view, reduction)
    assert states is not None
    features, keys = (
        getattr(view.vision, name)[0, 1:82].double() for name in ("features", "last_keys")
    )
    order = sorted(range(81), key=lambda i: -float(attention[i]))
    kept, others = sorted(order[:16]), sorted(order[16:])
    expected = []
    for patch in kept:
        rest = [i for i in range(81) if i != patch]
        alike = torch.cosine_similarity(keys[patch][None], keys[rest]).tolist()
        near = sorted(range(80), key=lambda i, a=alike: -a[i])[:neighbours]
        near = [rest[i] for i in near]
        expected.append(features[patch] + (attention[near, None] * features[near]).sum(0))
    extra = (attention[others, None] * features[others]).sum(0)
    slots = sorted([*kept, others[-1]])
    expected.insert(slots.index(others[-1]), extra)
    assert reduction.index[0].tolist() == [0, *(slot + 1 for slot in slots), 82, 83]
    assert_close(states[0, 1:18].double(), torch.stack(expected).tanh(), 1e-5)
    assert torch.equal(states[0, [0, -2, -1]], view.hidden[0, [0, -2, -1]])
    assert reduction.sizes()[0, 1 + slots.index(others[-1])] == 65


# ---------------------------------------------------------------- VisionZip


def test_visionzip_merges_states_of_the_tower_before_the_projector() -> None:
    features = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    view = before(
        [Grid(1, 2, 4)],
        features.tanh(),
        cls_attention=torch.tensor([0.05, 0.30, 0.02, 0.03, 0.25, 0.10, 0.15, 0.10]),
        keys=circle(0, 45, 5, 10, 45, 90, 85, 80),
        features=features,
    )
    assert view.vision is not None
    vision = dataclasses.replace(view.vision, project=lambda states: states.tanh())
    view = dataclasses.replace(view, vision=vision)
    method = VisionZip(dominant=2, contextual=2)
    reduction = method.reduce(view)
    states = method.states(view, reduction)
    assert states is not None
    # Patches 3, 4 join 1 and 7, 8 join 6; 2 and 5 are dominant.
    assert_close(states[0, 1], features[[0, 2, 3]].mean(0).tanh())
    assert torch.equal(states[0, 2:4], view.hidden[0, [2, 5]])
    assert_close(states[0, 4], features[[5, 6, 7]].mean(0).tanh())
    assert torch.equal(states[0, 5:], view.hidden[0, 9:])
    # After the projector the mean is another.
    later = VisionZip(dominant=2, contextual=2, merge="embeddings")
    assert later.states(view, reduction) is None
    assert "features" not in later.needs_vision()
    apart = (reduction.apply(view.hidden)[0, 1] - states[0, 1]).abs().max()
    assert float(apart) > 0.01


# ---------------------------------------------------------------- SparseVLM+


@pytest.mark.parametrize("heads", [None, 1, 2])
@pytest.mark.parametrize("corrected", [False, True])
def test_sparsevlm_scores_by_some_heads_and_without_the_places(
    heads: int | None, corrected: bool
) -> None:
    layout = row_layout([Grid(1, 4, 5)], text=5)
    view = random_view(layout, layer=2, heads=4, width=8)
    rotary = rotary_of(layout, 4)
    view = dataclasses.replace(
        view, inputs=PromptInputs(view.hidden, layout), rotary=rotary, keys=torch.zeros(1, 4, 28, 4)
    )
    method = SparseVLM(layers=(2,), kept=(6,), recycle=False, heads=heads, correct_rotary=corrected)
    rating = method._raters(view)[0].nonzero()[:, 0]
    where = torch.arange(layout.length)[None]
    rows = view.read_attention().probabilities(where)[0].double()  # (H, N, N)
    if corrected:
        ones = rotate(torch.ones(1, 1, layout.length, 4), rotary[0][:, None], rotary[1][:, None])
        rows = rows / (ones[0, 0] @ ones[0, 0].T / math.sqrt(4)).double()
    paid = rows[:, rating][..., layout.vision[0]].sum(1)  # (H, vision)
    best = paid.sum(1).topk(4 if heads is None else heads).indices
    expected = paid[best].mean(0).topk(6).indices.sort().values + 2
    index = method.reduce(view).index[0]
    assert index[layout.vision[0][index]].tolist() == expected.tolist()


def test_sparsevlm_plus_is_the_second_version() -> None:
    method = sparsevlm_plus(128)
    assert method.kept == TABLE_PLUS[128] == (238, 108, 60)
    assert (method.heads, method.correct_rotary, method.recycle) == (14, True, False)
    assert method.position_rule() == "keep"
    assert sparsevlm_plus().kept == (300, 200, 118)
