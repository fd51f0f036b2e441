"""What holds for every pruning method: batches, limits, errors, names."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lightkv.catalogue import method, methods
from lightkv.contract.compressor import Reducer
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.serving import rotary_of
from lightkv.contract.view import LayerView, PromptInputs
from lightkv.errors import InputError, UnknownNameError, UnsupportedError
from lightkv.pruning import (
    DART,
    CDPruner,
    DivPrune,
    Downsample,
    FastV,
    HiPrune,
    HiRED,
    PruMerge,
    PruMergePlus,
    PyramidDrop,
    SparseVLM,
    UniformGrid,
    VisionZip,
    VisPruner,
)
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout
from tests.pruning.views import FACTS, alone, random_before, tiled

BEFORE: list[Reducer] = [
    HiRED(kept=0.4),
    HiRED(kept=0.4, regions="chunk"),
    DivPrune(kept=0.3),
    VisionZip(dominant=3, contextual=2),
    VisionZip(dominant=0, contextual=4, combine="sum"),
    VisionZip(dominant=3, contextual=2, merge="embeddings"),
    PruMerge(neighbours=3, fixed=0.3),
    PruMerge(neighbours=3),
    PruMergePlus(neighbours=3, fixed=0.1),
    VisionZip(dominant=3, contextual=2, per="image"),
    VisPruner(tokens=6, important=0.5, step=2),
    VisPruner(tokens=6, per="image"),
    CDPruner(tokens=5),
    CDPruner(tokens=5, sign="positive", theta=0.5),
    CDPruner(tokens=5, per="image"),
    HiPrune(tokens=7, alpha=0.8),
    HiPrune(tokens=7, alpha=0.8, object_layer=2, neighbours="raster"),
    UniformGrid(kept=0.3),
    UniformGrid(kept=0.3, spacing="sequence"),
    Downsample(kept=0.3),
]
INSIDE: list[Reducer] = [
    FastV(layer=3, removed=0.4),
    SparseVLM(layers=(2,), kept=(6,)),
    SparseVLM(layers=(2,), kept=(6,), recycle=False, positions="keep"),
    SparseVLM(layers=(2,), kept=(6,), heads=1, correct_rotary=True),
    PyramidDrop(layers=(3,), ratios=(0.4,)),
    DART(layer=3, removed=0.7, vision_pivots=2, text_pivots=1),
]
ROWS = [
    [Grid(1, 4, 5)],
    [Grid(1, 3, 4), Grid(1, 5, 3)],
    [Grid(1, 6, 6)],
]


def view_for(method: Reducer, layout: TokenLayout) -> LayerView:
    layer = method.stage_layers(FACTS)[0]
    if layer < 0:
        return random_before(layout)
    view = random_view(layout, layer=layer, width=12)
    return dataclasses.replace(
        view,
        inputs=PromptInputs(view.hidden, layout),
        keys=view.hidden[:, None, :, :4],
        rotary=rotary_of(layout, 4),
        final_norm=lambda states: states,
    )


def single(view: LayerView, row: int) -> LayerView:
    cut = alone(view, row)
    if view.inputs is None:
        return cut
    return dataclasses.replace(
        cut,
        inputs=PromptInputs(cut.hidden, cut.layout),
        rotary=rotary_of(cut.layout, 4),
        final_norm=view.final_norm,
    )


def states_of(method: Reducer, view: LayerView, reduction: Reduction) -> Tensor:
    """Hidden states of the survivors."""
    states = method.states(view, reduction)
    return reduction.apply(view.hidden) if states is None else states


@pytest.mark.parametrize("method", BEFORE + INSIDE, ids=str)
@pytest.mark.parametrize("tiles", [False, True])
def test_batch_rows_are_pruned_as_they_would_be_alone(method: Reducer, tiles: bool) -> None:
    layout = TokenLayout.stack([row_layout(grids, text=3 + n) for n, grids in enumerate(ROWS)])
    layout = tiled(layout) if tiles else layout
    method.check(FACTS)
    method.check_layout(layout)
    view = view_for(method, layout)
    reduction = method.reduce(view)
    after = layout.select(reduction.index, reduction.valid)
    states = states_of(method, view, reduction)
    assert torch.equal(after.text.sum(1), layout.text.sum(1))
    assert (after.vision.sum(1) < layout.vision.sum(1)).all()
    for row in range(len(ROWS)):
        alone = single(view, row)
        expected = method.reduce(alone)
        kept = alone.layout.position[0, expected.index[0]]
        assert torch.equal(after.position[row, after.real[row]], kept)
        assert_close(states[row, after.real[row]], states_of(method, alone, expected)[0])
        assert (kept[1:] > kept[:-1]).all()


@pytest.mark.parametrize("method", BEFORE + INSIDE, ids=str)
def test_survivors_that_absorb_nothing_are_copied_bit_for_bit(method: Reducer) -> None:
    view = view_for(method, row_layout(ROWS[1]))
    reduction = method.reduce(view)
    single = reduction.sizes() == 1
    if isinstance(method, PruMerge | PruMergePlus):
        single = single & ~reduction.take(view.layout.vision)
    states = states_of(method, view, reduction)
    assert torch.equal(states[single], reduction.take(view.hidden)[single])
    released_sum = isinstance(method, VisionZip) and method.combine == "sum"
    sums = reduction.matrix().sum(-1)
    if not released_sum:
        assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("method", BEFORE + INSIDE, ids=str)
def test_a_prompt_needs_an_image(method: Reducer) -> None:
    with pytest.raises(InputError):
        method.check_layout(row_layout([]))


@pytest.mark.parametrize("method", BEFORE, ids=str)
def test_methods_before_the_decoder(method: Reducer) -> None:
    assert method.stage_layers(FACTS) == (-1,)
    assert method.attention_layers(FACTS) == ()
    assert method.position_rule() == "reindex"
    blind = dataclasses.replace(view_for(method, row_layout(ROWS[0])), vision=None)
    needed = method.needs_vision()
    if needed:
        with pytest.raises(UnsupportedError, match="|".join(needed)):
            method.reduce(blind)
    else:
        method.reduce(blind)


def test_what_visionzip_reads_of_the_vision_tower() -> None:
    assert {"cls_attention", "keys", "features"} <= VisionZip().needs_vision()
    assert "features" not in VisionZip(merge="embeddings").needs_vision()


def test_methods_inside_the_decoder() -> None:
    fastv, sparse = FastV(), SparseVLM()
    assert (fastv.stage_layers(FACTS), fastv.attention_layers(FACTS)) == ((1,), (1,))
    assert (sparse.stage_layers(FACTS), sparse.attention_layers(FACTS)) == ((2, 6, 15),) * 2
    drop, dart = PyramidDrop(), DART()
    assert drop.stage_layers(FACTS) == (1, 3, 5) and drop.attention_layers(FACTS) == ()
    assert drop.looks_ahead() and not (fastv.looks_ahead() or sparse.looks_ahead())
    assert (dart.stage_layers(FACTS), dart.attention_layers(FACTS)) == ((1,), ())
    assert (drop.position_rule(), dart.position_rule()) == ("reindex", "keep")
    assert not sparse.needs_rotary() and SparseVLM(correct_rotary=True).needs_rotary()
    assert (fastv.position_rule(), sparse.position_rule()) == ("keep", "reindex")
    assert (fastv.needs_inputs(), sparse.needs_inputs()) == (False, True)
    view = random_view(row_layout(ROWS[0]), layer=2)
    with pytest.raises(RuntimeError, match="not asked for"):
        SparseVLM(layers=(2,), kept=(3,)).reduce(view)


def test_nothing_removed_changes_nothing() -> None:
    view = random_view(row_layout(ROWS[0]), layer=1)
    assert FastV(removed=0).reduce(view).is_identity


def test_methods_by_name() -> None:
    assert method("fastv", removed=0.3) == FastV(removed=0.3)
    with pytest.raises(UnknownNameError, match="vispruner"):
        method("vispuner")
    names = [n for n, one in methods().items() if "pruning" in one.build.__module__]
    assert len(names) >= 7
    for name in names:
        built = method(name)
        assert eval(str(built), {type(built).__name__: type(built)}) == built
