"""Where windows lie, what stands outside them, and which guidance and windows are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError
from lightkv.merging.lightkv import LightKV
from lightkv.merging.partition import Partition, partition, square_blocks
from lightkv.merging.tofu import ToFu
from lightkv.merging.weighting import random_importance
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout


@pytest.mark.parametrize("kind", ["true-grid", "square", "square-blocks", "global"])
def test_text_is_outside_every_window(kind: Partition) -> None:
    layout = TokenLayout.stack([row_layout([Grid(1, 4, 6)]), row_layout([Grid(1, 2, 2)])])
    cut = partition(kind, layout, 1 if kind == "global" else 2)
    for part in (cut.block, cut.window):
        assert part.dtype == np.int64
        assert ((part < 0) == ~layout.vision.numpy()).all()
        assert part.min() == -1


def test_blocks_that_cannot_be_equal_are_refused_with_their_row() -> None:
    even = row_layout([Grid(1, 2, 2), Grid(1, 2, 2)])
    uneven = row_layout([Grid(1, 2, 2), Grid(1, 1, 3)])
    with pytest.raises(InputError, match="row 1 of the batch holds 7 vision tokens of 2 images"):
        square_blocks(TokenLayout.stack([even, uneven]), 1)


def test_one_window_has_no_windows_in_it() -> None:
    facts = ModelFacts(layers=8, heads=4, kv_heads=4, hidden_size=6)
    LightKV((0,), (1,), (0.5,), partition="global").check(facts)
    with pytest.raises(InvalidValueError, match="1 at each stage, if global"):
        LightKV((0,), (2,), (0.5,), partition="global").check(facts)


def test_rows_that_a_stage_leaves_alone_are_outside_every_window() -> None:
    layout = TokenLayout.stack([row_layout([Grid(1, 4, 4)]), row_layout([Grid(1, 2, 2)])])
    method = LightKV((0,), (2,), (0.5,), partition="square", min_tokens=4)
    cut = method.windows_of(random_view(layout))
    assert set(cut.block[1].tolist()) == set(cut.window[1].tolist()) == {-1}
    assert cut.window[0].max() == 3


def test_random_guidance_counts_the_prompt_that_is_asked_for() -> None:
    view = random_view(row_layout([Grid(1, 4, 4)], system=9))
    drawn = {}
    for prompt in ("text", "question"):
        method = LightKV((0,), (1,), (0.5,), guidance="random", prompt=prompt)
        drawn[prompt] = method.importance(view)
        assert torch.equal(drawn[prompt], random_importance(view, prompt))
    assert_close(drawn["question"].sum() * 4, drawn["text"].sum(), share=0.1)


def test_norms_of_half_precision_are_taken_in_single() -> None:
    wide = random_view(row_layout([Grid(1, 6, 6)]), layer=8, width=12)
    half = dataclasses.replace(wide, hidden=wide.hidden.bfloat16())
    same = dataclasses.replace(wide, hidden=half.hidden.float())
    method = ToFu((8,), (0.5,), switch=0.0, norm="target")
    assert_close(method.reduce(half).weight, method.reduce(same).weight)
