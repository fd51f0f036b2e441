"""Options, limits and errors of LightKV."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from lightkv.contract.groups import Groups, gather_groups
from lightkv.contract.layout import Grid, TokenLayout, single_layout
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.merging import LightKV, StageSkippedWarning, weighting
from lightkv.merging.matching import match, merge_counts
from lightkv.merging.partition import part, square_side, true_grid
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout, row_of

FACTS = ModelFacts(layers=8, heads=4, kv_heads=4, hidden_size=6)
HALF = LightKV((2, 4, 5), (4, 2, 1), (0.5, 0.5, 0.5))


def sized(*counts: int) -> Groups:
    """Groups of so many members, in one row."""
    index = torch.arange(max(counts)).expand(len(counts), -1)
    return Groups(index, index < torch.tensor(counts)[:, None], np.zeros(len(counts), np.int64))


def test_counts_are_floored_per_window_and_capped_at_one_half() -> None:
    sizes = sized(0, 1, 2, 9, 36, 100)
    assert merge_counts(sizes, 0.5).tolist() == [0, 0, 1, 4, 18, 50]
    assert merge_counts(sizes, 0.9).tolist() == [0, 0, 1, 4, 18, 50]
    assert merge_counts(sizes, 0.29).tolist() == [0, 0, 0, 2, 10, 29]


def test_counts_are_exact_and_in_float32_as_the_released_code_rounds_them() -> None:
    assert merge_counts(sized(100, 180), 0.29).tolist() == [29, 52]
    assert merge_counts(sized(180, 340), 0.35).tolist() == [63, 119]
    assert merge_counts(sized(150), 0.42).tolist() == [63]
    assert merge_counts(sized(150), 0.42, single=True).tolist() == [62]


def test_parts_of_a_side_differ_by_one_and_the_longer_come_first() -> None:
    def lengths(side: int, parts: int) -> list[int]:
        numbers = part(np.arange(side), np.full(side, side), parts)
        return [int(count) for count in np.bincount(numbers, minlength=parts)]

    assert lengths(17, 2) == [9, 8]
    assert lengths(10, 4) == [3, 3, 2, 2]
    assert lengths(24, 4) == [6, 6, 6, 6]
    assert lengths(2, 4) == [1, 1, 0, 0]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 35, 36, 37, 576, 2144, 94906266**2])
def test_the_square_is_just_large_enough(count: int) -> None:
    side = int(square_side(np.array(count)))
    assert (side - 1) ** 2 < count <= side**2


def test_ties_go_to_the_lowest_index() -> None:
    pairs = match(torch.ones(1, 8, 3), sized(8), np.array([3]))
    assert pairs.source.tolist() == [0, 2, 4]
    assert pairs.target.tolist() == [1, 1, 1]


def test_576_tokens_go_to_288_145_73_by_the_released_rule() -> None:
    method = LightKV.released("qwen", (0, 1, 2), (4, 2, 1), (0.5, 0.5, 0.5))
    layout, lengths = row_layout([Grid(1, 24, 24)]), []
    for stage in range(3):
        reduction = method.reduce(random_view(layout, layer=stage, seed=stage))
        layout = layout.select(reduction.index, reduction.valid)
        lengths.append(int(layout.vision.sum()))
    assert lengths == [288, 145, 73]


def test_windows_stay_inside_frames_and_images() -> None:
    layout = row_layout([Grid(2, 4, 4), Grid(1, 4, 6)])
    groups = gather_groups(true_grid(layout, 2).labels())
    assert groups.counts.tolist() == [4] * 8 + [6] * 4
    for members, valid in zip(groups.index, groups.valid, strict=True):
        cells = {(int(layout.image[0, i]), int(layout.frame[0, i])) for i in members[valid]}
        assert len(cells) == 1


def test_weights_are_the_named_quantities() -> None:
    view = random_view(row_layout([Grid(1, 4, 4)]), heads=3)
    layout = view.layout
    logits = view.read_attention().logits(torch.arange(layout.length)[None])[0]
    later = torch.ones(layout.length, layout.length, dtype=torch.bool).triu(1)
    for masked in (False, True):
        scores = logits.masked_fill(later, -torch.inf) if masked else logits
        for normalise, axis in (("keys", -1), ("queries", -2)):
            for prompt, asking in (("text", layout.text[0]), ("question", layout.question[0])):
                method = LightKV(
                    (0,), (1,), (0.5,), normalise=normalise, masked=masked, prompt=prompt
                )
                expected = torch.softmax(scores, axis)[:, :, asking].sum((0, 2))
                importance = method.importance(view)[0]
                assert_close(importance, expected * layout.vision[0])
    sized = dataclasses.replace(view, sizes=torch.arange(layout.length)[None])
    assert LightKV((0,), (1,), (0.5,), guidance="size").importance(sized).tolist() == [
        [float(n) for n in range(layout.length)]
    ]


def test_random_weights_follow_the_seed_and_are_practically_a_mean() -> None:
    layout = row_layout([Grid(1, 24, 24)], system=0, text=20)
    view = dataclasses.replace(random_view(layout), keys=torch.zeros(1, 32, layout.length, 1))
    method = LightKV((0,), (1,), (0.5,), guidance="random")
    weights = method.importance(view)[0, layout.vision[0]]
    assert torch.equal(weights, method.importance(view)[0, layout.vision[0]])
    assert 0.88 < float(weights.min() / weights.max()) < 0.97
    assert 0.98 < float(weights.mean() * layout.length / (32 * 20)) < 1.02
    other = method.importance(dataclasses.replace(view, seed=1))[0, layout.vision[0]]
    assert not torch.equal(weights, other)
    assert abs(float(torch.corrcoef(torch.stack([weights, other]))[0, 1])) < 0.15


def test_random_weights_do_not_depend_on_batch_company() -> None:
    layouts = [row_layout([Grid(1, 3, 5)], text=9), row_layout([Grid(1, 2, 2)])]
    view = random_view(TokenLayout.stack(layouts))
    method = LightKV((0,), (1,), (0.5,), guidance="random")
    for row in range(2):
        alone = row_of(view, row)
        importance = method.importance(view)[row, view.layout.real[row]]
        assert_close(importance, method.importance(alone)[0])


def test_random_weights_are_the_same_however_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = random_view(row_layout([Grid(1, 4, 4)], text=9))
    method = LightKV((0,), (1,), (0.5,), guidance="random")
    together = method.importance(view)
    monkeypatch.setattr(weighting, "_HASHED_ON_HOST", 3 * view.layout.length)
    assert_close(method.importance(view), together)


def test_a_ratio_of_zero_is_the_identity() -> None:
    view = random_view(row_layout([Grid(1, 4, 4)]))
    reduction = LightKV((0,), (1,), (0.0,)).reduce(view)
    assert reduction.is_identity
    assert torch.equal(reduction.apply(view.hidden), view.hidden)


def test_only_prompt_guidance_asks_for_attention() -> None:
    assert HALF.stage_layers(FACTS) == (2, 4, 5)
    assert HALF.attention_layers(FACTS) == (2, 4, 5)
    for guidance in ("uniform", "size", "random"):
        assert dataclasses.replace(HALF, guidance=guidance).attention_layers(FACTS) == ()


@pytest.mark.parametrize(
    ("family", "layers", "windows"),
    [("llava", (12, 18, 24), (4, 2, 1)), ("qwen", (12, 17, 22), (6, 4, 2))],
)
def test_released_schedules_are_those_of_the_scripts(
    family: str, layers: tuple[int, ...], windows: tuple[int, ...]
) -> None:
    method = LightKV.released(family)  # type: ignore[arg-type]
    assert (method.layers, method.windows, method.ratios) == (layers, windows, (0.5, 0.5, 0.5))
    assert LightKV.released("qwen", ratios=(0.5, 0.4, 0.25)).windows == (6, 4, 2)


def test_the_first_layer_looks_both_ways_in_the_released_code_only() -> None:
    assert HALF.two_way_layers(FACTS) == ()
    released = LightKV.released("llava")
    assert released.two_way_layers(FACTS) == (12,)
    assert dataclasses.replace(released, first_layer="causal").two_way_layers(FACTS) == ()


def test_positions_are_an_option() -> None:
    assert HALF.position_rule() == "keep"
    assert LightKV.released("llava").position_rule() == "reindex-prefill"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"layers": (2, 4)}, "windows"),
        ({"layers": ()}, "layers"),
        ({"layers": (4, 2, 5)}, "layers"),
        ({"layers": (2, 2, 5)}, "layers"),
        ({"layers": (-1, 2, 5)}, "layers"),
        ({"layers": (2, 4, 7)}, "layers"),
        ({"windows": (4, 2)}, "windows"),
        ({"windows": (2, 4, 1)}, "windows"),
        ({"windows": (2, 1, 0)}, "windows"),
        ({"ratios": (0.5, 0.5)}, "ratios"),
        ({"ratios": (0.5, 0.5, 0.6)}, "ratios"),
        ({"ratios": (0.5, -0.1, 0.5)}, "ratios"),
        ({"ratios": (0.5, float("nan"), 0.5)}, "ratios"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"floor": -1.0}, "floor"),
        ({"guidance": "colour"}, "guidance"),
        ({"normalise": "heads"}, "normalise"),
        ({"partition": "hexagons"}, "partition"),
        ({"positions": "shuffle"}, "positions"),
        ({"prompt": "image"}, "prompt"),
        ({"counting": "float16"}, "counting"),
        ({"first_layer": "blind"}, "first_layer"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(changes: dict[str, object], name: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        dataclasses.replace(HALF, **changes).check(FACTS)
    assert caught.value.name == name
    assert caught.value.allowed


def test_right_values_pass() -> None:
    HALF.check(FACTS)
    LightKV((0, 6), (3, 3), (0.0, 0.5)).check(FACTS)
    LightKV.released("qwen", (3,), (1,), (0.9,)).check(FACTS)
    with pytest.raises(InvalidValueError, match="llava, qwen"):
        LightKV.released("gemma")  # type: ignore[arg-type]


def test_a_prompt_needs_an_image_in_every_row_and_text_to_guide() -> None:
    blind = TokenLayout.stack([row_layout([Grid(1, 4, 4)]), row_layout([])])
    with pytest.raises(InputError, match="row 1"):
        HALF.check_layout(blind)
    mute = row_layout([Grid(1, 4, 4)], system=0, text=0)
    with pytest.raises(InputError, match="text"):
        HALF.check_layout(mute)
    dataclasses.replace(HALF, guidance="uniform").check_layout(mute)


def test_windows_must_fit_the_smallest_grid() -> None:
    HALF.check_layout(row_layout([Grid(1, 4, 9)]))
    with pytest.raises(InvalidValueError, match="at most 3"):
        HALF.check_layout(row_layout([Grid(1, 8, 8), Grid(1, 3, 9)]))
    square = dataclasses.replace(HALF, partition="square")
    square.check_layout(row_layout([Grid(1, 2, 5)]))
    with pytest.raises(InvalidValueError, match="at most 3"):
        square.check_layout(row_layout([Grid(1, 1, 9)]))


def test_too_few_tokens_skip_the_stage_with_a_warning_and_only_for_that_prompt() -> None:
    layout = TokenLayout.stack(
        [row_layout([Grid(1, 4, 8), Grid(1, 4, 8)]), row_layout([Grid(1, 4, 8), Grid(1, 1, 32)])]
    )
    method = LightKV((0,), (2,), (0.5,), min_tokens=8)
    method.check_layout(layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert method.reduce(random_view(layout)).new_length == layout.length - 32
    small = TokenLayout.stack(
        [row_layout([Grid(1, 4, 8), Grid(1, 4, 8)]), row_layout([Grid(1, 8, 8), Grid(1, 1, 31)])]
    )
    with pytest.warns(StageSkippedWarning, match=r"rows \[1\]"):
        reduction = method.reduce(random_view(small))
    kept = reduction.valid.sum(1)
    assert kept.tolist() == [int(small.real[0].sum()) - 32, int(small.real[1].sum())]


def test_the_released_partition_mixes_unequal_images_or_refuses_them() -> None:
    method = LightKV.released("qwen", (0,), (2,), (0.5,))
    layout = row_layout([Grid(1, 8, 8), Grid(1, 6, 6)])
    method.check_layout(layout)
    windows = method.windows_of(random_view(layout))
    assert [int((windows.block == b).sum()) for b in (0, 1)] == [50, 50]
    with pytest.raises(InputError, match="equal blocks"):
        method.check_layout(row_layout([Grid(1, 8, 8), Grid(1, 5, 7)]))


def test_vanishing_weights_average_in_the_paper_and_shrink_in_the_released_code() -> None:
    layout = single_layout([2] * 16, [Grid(1, 4, 4)])
    view = random_view(layout)
    paper = LightKV((0,), (1,), (0.5,), partition="square").reduce(view)
    sums = paper.matrix().sum(-1)
    assert_close(sums, torch.ones_like(sums))
    released = LightKV.released("qwen", (0,), (1,), (0.5,)).reduce(view)
    merged = released.sizes() > 1
    assert (released.apply(view.hidden)[merged] == 0).all()
    assert (released.matrix().sum(-1)[~merged] == 1).all()


def test_methods_print_as_what_they_are_and_take_lists() -> None:
    method = LightKV([2], [1], [0.5])  # type: ignore[arg-type]
    assert eval(str(method), {"LightKV": LightKV}) == method
    assert hash(method) == hash(LightKV((2,), (1,), (0.5,)))


def test_published_schedules_by_model() -> None:
    method = LightKV.for_model("llava-1.5-13b", guidance="uniform")
    assert (method.layers, method.windows) == ((15, 23, 31), (4, 2, 1))
    assert method.guidance == "uniform"
    with pytest.raises(UnknownNameError):
        LightKV.for_model("llava-1.5-14b")
