"""Cost against the papers' printed digits and torch's FLOP counter."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from figures.paper import numbers
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import LayerView
from lightkv.cost.presets import MergeSchedule, preset, presets
from lightkv.cost.records import Cost
from lightkv.cost.token_counts import (
    floor_share,
    merges,
    stage_windows,
    token_layer_fraction,
    tokens_per_layer,
    window_sizes,
)
from lightkv.cost.workload import PAPER_USED_LAYERS, Workload, workload_cost
from lightkv.errors import InvalidValueError
from lightkv.families.slots import Picture, Placed, Segment, row_layout
from lightkv.merging import LightKV

LLAVA = ("llava-1.5-7b", "llava-1.5-13b", "llava-next-7b", "llava-next-13b")
SMALL = preset("llava-1.5-7b").shape


def cost_of(name: str, schedule: MergeSchedule | None = None, **options: Any) -> Cost:
    entry = preset(name)
    return workload_cost(entry.shape, Workload.of(entry), schedule=schedule, **options)


def printed(artefact: str, model: str, method: str, setting: str, metric: str) -> float:
    frame = numbers(artefact).set_index(["model", "method", "setting", "metric"])
    return float(frame.loc[(model, method, setting, metric), "value"])


# The papers' digits


@pytest.mark.parametrize(
    ("name", "tera", "gib"),
    [
        ("llava-1.5-13b", 19.40, 0.552),
        ("llava-1.5-7b", 10.21, 0.354),
        ("llava-next-13b", 65.08, 1.749),
        ("llava-next-7b", 34.92, 1.119),
    ],
)
def test_vanilla_under_the_paper_convention(name: str, tera: float, gib: float) -> None:
    cost = cost_of(name)
    assert round(cost.flops.tera, 2) == tera
    assert round(cost.kv.gib, 3) == gib


@pytest.mark.parametrize("name", LLAVA)
def test_vanilla_rows_are_printed_digit_by_digit_without_the_unread_vision_layer(name: str) -> None:
    cost = cost_of(name, convention=PAPER_USED_LAYERS)
    row = ("L-T1", name, "vanilla", "compression=none")
    assert round(cost.flops.tera, 1) == printed(*row, "flops")
    assert round(cost.kv.gib, 2) == printed(*row, "kv_cache_memory")


@pytest.mark.parametrize(("name", "gib"), [("llava-1.5-13b", 0.366), ("llava-next-13b", 1.053)])
def test_lightkv_memory_with_windows_that_halve_exactly(name: str, gib: float) -> None:
    schedule = MergeSchedule((15, 23, 31), (1, 1, 1), (0.5, 0.5, 0.5))
    cost = cost_of(name, schedule, partition="square")
    assert cost.kv.gib == pytest.approx(gib, abs=5e-4)


@pytest.mark.parametrize("name", LLAVA)
def test_lightkv_memory_is_printed_of_the_square_re_reading(name: str) -> None:
    schedule = preset(name).schedules[0]
    expected = printed("L-T1", name, "lightkv", "compression=55%", "kv_cache_memory")
    assert round(cost_of(name, schedule, partition="square").kv.gib, 2) == expected


@pytest.mark.parametrize("name", ["llava-1.5-13b", "llava-next-13b"])
@pytest.mark.parametrize("layers", [(15, 23, 31), (17, 24, 31)])
def test_lightkv_schedules_of_table_6(name: str, layers: tuple[int, ...]) -> None:
    schedule = MergeSchedule(layers, (4, 2, 1), (0.5, 0.5, 0.5))
    row = ("L-T6", name, "lightkv", f"Lambda={','.join(map(str, layers))};W=4,2,1")
    cost = cost_of(name, schedule, partition="square")
    assert 1.015 < cost.flops.tera / printed(*row, "flops") < 1.055
    assert cost.kv.gib == pytest.approx(printed(*row, "kv_cache_memory"), abs=0.02)


def test_internvl2_vanilla_of_table_2() -> None:
    cost = cost_of("internvl2-8b")
    row = ("L-T2", "internvl2-8b", "vanilla", "compression=none")
    assert cost.flops.tera == pytest.approx(printed(*row, "flops"), rel=0.005)
    assert round(cost.kv.gib, 2) == printed(*row, "kv_cache_memory")


@pytest.mark.parametrize("context", [8, 16])
@pytest.mark.parametrize("retention", [None, 0.5, 0.1, 0.05])
def test_tgv_kv_memory_of_table_4(context: int, retention: float | None) -> None:
    request = Workload(0, prompt_tokens=1000 * context, generated_tokens=0)
    method, kept = ("vanilla", "attn=eager") if retention is None else (
        "tgv-kv", f"retention={retention:.0%}")  # fmt: skip
    expected = printed("T-T4", "llava-1.5-7b", method, f"context={context}k;{kept}",
                       "kv_cache_memory")  # fmt: skip
    assert round(workload_cost(SMALL, request, retention=retention).kv.gib, 2) == expected


def test_eq_9_worked_example_and_the_55_percent() -> None:
    halves = (0.5, 0.5, 0.5)
    example = MergeSchedule((10, 20, 30), (4, 2, 1), halves)
    assert token_layer_fraction(40, example) == pytest.approx(0.46875)
    assert (
        round(token_layer_fraction(40, MergeSchedule((15, 23, 31), (4, 2, 1), halves)), 2) == 0.55
    )


def test_released_rule_on_576_tokens() -> None:
    schedule = MergeSchedule((0, 1, 2), (4, 2, 1), (0.5, 0.5, 0.5))
    sizes = stage_windows(576, schedule, partition="square")
    assert [sum(windows) for windows in sizes] == [576, 288, 145]
    assert sum(merges(m, 0.5) for m in sizes[2]) == 145 - 73
    assert window_sizes(288, 2) == (81, 72, 72, 63) == sizes[1]


def test_the_true_grid_halves_576_tokens_and_leaves_line_breaks_alone() -> None:
    schedule = MergeSchedule((0, 1, 2), (4, 2, 1), (0.5, 0.5, 0.5))
    assert tokens_per_layer(4, 576, 48, schedule, [(24, 24)]) == (624, 336, 192, 120)
    assert tokens_per_layer(4, 600, 48, schedule, [(24, 24)]) == (648, 360, 216, 144)


def test_the_rules_for_windows_differ_where_there_are_tiles_and_line_breaks() -> None:
    schedule = preset("llava-next-13b").schedules[0]
    assert round(cost_of("llava-next-13b", schedule).kv.gib, 3) == 1.064
    assert round(cost_of("llava-next-13b", schedule, partition="square").kv.gib, 3) == 1.054


@pytest.mark.parametrize(
    ("share", "count", "whole"),
    [
        (0.29, 100, 29),
        (0.35, 180, 63),
        (1 / 3, 3, 1),
        (1e-5, 200_000, 2),
        (1, 7, 7),
        # No simple fraction: the decimal itself.
        (0.12345678912345, 10**14, 12345678912345),
        (0.49999999999999994, 4, 1),
    ],
)
def test_shares_are_exact_on_the_number_that_was_written(
    share: float, count: int, whole: int
) -> None:
    assert floor_share(share, count) == whole


def alike(layout: TokenLayout, layer: int) -> LayerView:
    """A view in which all tokens are alike."""
    return LayerView(
        layer=layer,
        layers=layer + 2,
        hidden=torch.ones(1, layout.length, 2),
        layout=layout,
        sizes=torch.ones_like(layout.kind),
    )


@pytest.mark.parametrize("windows", [(6, 4, 2), (4, 2, 1), (5, 3, 3)])
@pytest.mark.parametrize("ratio", [0.5, 0.29, 0.35])
@pytest.mark.parametrize("name", presets())
def test_counts_are_those_of_the_method(name: str, windows: tuple[int, ...], ratio: float) -> None:
    entry, text = preset(name), 3
    picture = Picture(tuple(Segment(Grid(1, rows, cols)) for rows, cols in entry.grids))
    breaks = entry.vision_tokens - picture.tokens
    if breaks:
        # What has no cell of its own lies after the last grid, as a column of its own.
        segments = (*picture.segments[:-1], Segment(picture.segments[-1].grid, "rows"))
        picture = Picture(segments)
    extra = entry.vision_tokens - picture.tokens
    picture = dataclasses.replace(
        picture,
        segments=(dataclasses.replace(picture.segments[0], leading=extra), *picture.segments[1:]),
    )
    real = torch.ones(entry.vision_tokens + text, dtype=torch.bool)
    layout = row_layout(real, [Placed(torch.arange(entry.vision_tokens), [picture])])
    schedule = MergeSchedule((0, 1, 2), windows, (ratio,) * 3)
    method = LightKV.of(schedule, guidance="uniform")
    method.check_layout(layout)
    counts = [layout.length]
    for layer in schedule.layers:
        reduction = method.reduce(alike(layout, layer))
        layout = layout.select(reduction.index, reduction.valid)
        counts.append(layout.length)
    ours = tokens_per_layer(4, entry.vision_tokens, text, schedule, entry.grids)
    assert ours == tuple(counts)


def test_the_stage_layer_itself_caches_in_full() -> None:
    schedule = MergeSchedule((1,), (4,), (0.5,))
    assert tokens_per_layer(4, 576, 48, schedule, [(24, 24)]) == (624, 624, 336, 336)


@pytest.mark.parametrize("grids", [(), ((24, 25),), ((0, 24),)])
def test_the_true_grid_needs_grids_that_hold_the_tokens(grids: tuple[tuple[int, int], ...]) -> None:
    schedule = MergeSchedule((1,), (4,), (0.5,))
    with pytest.raises(InvalidValueError, match="grids"):
        tokens_per_layer(4, 576, 48, schedule, grids)
    with pytest.raises(InvalidValueError, match="at most 3 per side"):
        tokens_per_layer(4, 576, 48, schedule, [(24, 3)])
