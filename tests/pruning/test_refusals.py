"""What pruning methods refuse: values, choices, prompts and tiles, each by name."""

from __future__ import annotations

import pytest

from lightkv.contract.compressor import Reducer
from lightkv.contract.layout import Grid
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
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
from tests.merging.views import row_layout
from tests.pruning.views import FACTS, tiled


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (FastV(layer=0), "layer"),
        (FastV(layer=8), "layer"),
        (FastV(removed=1), "removed"),
        (FastV(removed=-0.1), "removed"),
        (HiRED(kept=0), "kept"),
        (HiRED(kept=1.1), "kept"),
        (HiRED(full=-1), "full"),
        (DivPrune(kept=0), "kept"),
        (VisionZip(dominant=-1), "dominant"),
        (VisionZip(contextual=0), "contextual"),
        (VisPruner(tokens=0), "tokens"),
        (VisPruner(step=0), "step"),
        (VisPruner(important=1.5), "important"),
        (CDPruner(tokens=0), "tokens"),
        (CDPruner(theta=1), "theta"),
        (SparseVLM(layers=(2,), kept=(5,), heads=5), "heads"),
        (SparseVLM(layers=(2,), kept=(5,), heads=0), "heads"),
        (PruMerge(neighbours=-1), "neighbours"),
        (PruMergePlus(fixed=0), "fixed"),
        (PyramidDrop(layers=(0, 2, 3)), "layers"),
        (PyramidDrop(layers=(2, 3, 8)), "layers"),
        (PyramidDrop(ratios=(0.5, 0.6, 0.1)), "ratios"),
        (PyramidDrop(ratios=(0.5, 0.25)), "ratios"),
        (PyramidDrop(ratios=(0.5, 0.25, 0.0)), "ratios"),
        (DART(layer=0), "layer"),
        (DART(layer=8), "layer"),
        (DART(removed=1), "removed"),
        (DART(vision_pivots=0), "vision_pivots"),
        (DART(text_pivots=-1), "text_pivots"),
        (DART(order=(0, 1)), "order"),
        (HiPrune(tokens=0), "tokens"),
        (HiPrune(alpha=1.1), "alpha"),
        (HiPrune(object_layer=0), "object_layer"),
        (UniformGrid(kept=0), "kept"),
        (Downsample(kept=1.1), "kept"),
        (SparseVLM(), "layers"),
        (SparseVLM(layers=(2, 3), kept=(5,)), "kept"),
        (SparseVLM(layers=(2,), kept=(0,)), "kept"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(method: Reducer, name: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        method.check(FACTS)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("build", "option"),
    [
        (FastV, "positions"),
        (SparseVLM, "positions"),
        (DivPrune, "positions"),
        (HiRED, "regions"),
        (VisionZip, "combine"),
        (CDPruner, "sign"),
        (CDPruner, "per"),
        (VisionZip, "per"),
        (VisPruner, "per"),
        (HiPrune, "neighbours"),
        (VisionZip, "merge"),
        (DART, "counting"),
        (DART, "positions"),
        (PyramidDrop, "positions"),
        (UniformGrid, "of"),
        (UniformGrid, "spacing"),
        (Downsample, "of"),
    ],
)
def test_unknown_choices_are_refused(build: type[Reducer], option: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        build(**{option: "other"})
    assert caught.value.name == option


@pytest.mark.parametrize(
    "method",
    [VisionZip(15, 10), VisPruner(tokens=25), CDPruner(tokens=25), HiPrune(tokens=25)],
    ids=str,
)
def test_more_tokens_than_an_image_has_are_refused(method: Reducer) -> None:
    method.check_layout(row_layout([Grid(1, 5, 5)]))
    with pytest.raises(InvalidValueError, match="at most 24"):
        method.check_layout(row_layout([Grid(1, 5, 5), Grid(1, 4, 6)]))


def test_hired_refuses_tiles_that_it_can_not_place() -> None:
    with pytest.raises(UnsupportedError, match="whole view"):
        HiRED().check_layout(tiled(row_layout([Grid(1, 2, 2)] * 3)))


def test_dart_needs_as_many_tokens_as_pivots() -> None:
    DART().check_layout(row_layout([Grid(1, 2, 2)], text=4))
    with pytest.raises(InputError, match="text after the last image"):
        DART().check_layout(row_layout([Grid(1, 2, 2)], text=3))
    with pytest.raises(InputError, match="has 0 such tokens"):
        DART().check_layout(row_layout([Grid(1, 2, 2)] * 2, between=9, text=0))
    with pytest.raises(InvalidValueError, match="at most 3"):
        DART().check_layout(row_layout([Grid(1, 1, 3)], text=4))


def test_sparsevlm_needs_a_question() -> None:
    with pytest.raises(InputError, match="text after the image"):
        SparseVLM().check_layout(row_layout([Grid(1, 2, 2)], text=0))
