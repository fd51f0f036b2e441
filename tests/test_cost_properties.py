"""Invariants of the cost model, its refusals, and the command."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from lightkv.cost.cli import cost_command
from lightkv.cost.presets import MergeSchedule, preset, presets
from lightkv.cost.records import Cost
from lightkv.cost.token_counts import (
    entries_per_layer,
    merges,
    token_layer_fraction,
    tokens_per_layer,
    window_sizes,
)
from lightkv.cost.workload import (
    EXECUTED,
    PAPER,
    PAPER_USED_LAYERS,
    Convention,
    Workload,
    matching_macs,
    prefill_memory,
    workload_cost,
)
from lightkv.errors import InvalidValueError

SMALL = preset("llava-1.5-7b").shape


def cost_of(name: str, schedule: MergeSchedule | None = None, **options: Any) -> Cost:
    entry = preset(name)
    return workload_cost(entry.shape, Workload.of(entry), schedule=schedule, **options)


# Invariants

ratios = st.floats(0, 1)


@st.composite
def schedules(draw: st.DrawFn) -> MergeSchedule:
    layers = sorted(draw(st.sets(st.integers(0, 31), min_size=1, max_size=4)))
    windows = draw(st.lists(st.integers(1, 6), min_size=len(layers), max_size=len(layers)))
    shares = draw(st.lists(ratios, min_size=len(layers), max_size=len(layers)))
    return MergeSchedule(tuple(layers), tuple(windows), tuple(shares))


@given(st.integers(0, 3000), st.integers(1, 8))
def test_windows_partition_the_tokens(tokens: int, windows: int) -> None:
    sizes = window_sizes(tokens, windows)
    assert sum(sizes) == tokens
    assert len(sizes) <= windows**2


@given(st.integers(0, 3000), st.integers(1, 8), ratios, ratios)
def test_a_larger_ratio_never_keeps_more_and_none_keeps_below_half(
    tokens: int, windows: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    for size in window_sizes(tokens, windows):
        assert merges(size, low) <= merges(size, high) <= size // 2 == merges(size, 1.0)
        assert merges(size, 0.0) == 0


@settings(max_examples=50)
@given(schedules(), st.integers(0, 2200), st.integers(1, 200))
def test_tokens_fall_with_depth_and_text_stays(
    schedule: MergeSchedule, vision: int, text: int
) -> None:
    tokens = tokens_per_layer(32, vision, text, schedule, partition="square")
    assert len(tokens) == 32
    assert tokens[0] == vision + text
    assert all(a >= b >= text for a, b in itertools.pairwise(tokens))


@settings(max_examples=50)
@given(schedules(), st.sampled_from([PAPER, PAPER_USED_LAYERS, EXECUTED]), st.integers(0, 2200))
def test_merging_never_costs_more_and_totals_are_sums(
    schedule: MergeSchedule, convention: Convention, vision: int
) -> None:
    request = Workload(vision)
    full = workload_cost(SMALL, request, convention=convention)
    merged = {"schedule": schedule, "partition": "square"}
    less = workload_cost(SMALL, request, convention=convention, **merged)
    assert less.kv.total <= full.kv.total
    assert less.flops.total - less.flops.matching <= full.flops.total
    for record in (less.flops, less.kv, prefill_memory(SMALL, request, **merged)):
        assert record.total == sum(getattr(record, field.name) for field in fields(record))
    nothing = replace(schedule, ratios=(0.0,) * len(schedule.layers))
    same = workload_cost(
        SMALL,
        request,
        schedule=nothing,
        partition="square",
        convention=replace(convention, matching=False),
    )
    assert same == workload_cost(SMALL, request, convention=replace(convention, matching=False))


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.lists(st.integers(1, 3000), min_size=1))
def test_retention_is_monotonic_and_one_keeps_all(
    one: float, other: float, tokens: list[int]
) -> None:
    low, high = sorted((one, other))
    fewer, more = entries_per_layer(tokens, low), entries_per_layer(tokens, high)
    assert all(1 <= a <= b <= n for a, b, n in zip(fewer, more, tokens, strict=True))
    assert entries_per_layer(tokens, 1.0) == tuple(tokens)
    assert entries_per_layer(tokens, [low] * len(tokens)) == fewer


def test_one_flop_per_mac_halves_the_count() -> None:
    two = cost_of("llava-1.5-7b").flops
    one = cost_of("llava-1.5-7b", convention=replace(PAPER, per_mac=1)).flops
    assert two.total == 2 * one.total
    assert two.head == two.head_prefill + two.head_decode


def test_matching_is_small_and_windows_make_it_smaller() -> None:
    entry = preset("llava-1.5-13b")
    windowed = entry.schedules[0]
    pairs = {
        w: matching_macs(entry.shape, Workload.of(entry), replace(windowed, windows=(w, 1, 1)))
        for w in (1, 2, 4)
    }
    assert pairs[4] < pairs[2] < pairs[1]
    flops = cost_of("llava-1.5-13b", windowed, convention=EXECUTED).flops
    assert 0 < flops.matching < 0.001 * flops.total


def test_prefill_memory_shrinks_by_the_vision_cache_alone() -> None:
    entry = preset("llava-next-7b")
    full = prefill_memory(entry.shape, Workload.of(entry), convention=EXECUTED)
    less = prefill_memory(
        entry.shape, Workload.of(entry), schedule=entry.schedules[0], convention=EXECUTED
    )
    assert (full.weights, full.text_kv, full.rest) == (less.weights, less.text_kv, less.rest)
    assert less.vision_kv < 0.6 * full.vision_kv
    assert full.gib == pytest.approx(14.4, abs=0.3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Workload(-1), "vision_tokens"),
        (lambda: Workload(0, prompt_tokens=0), "prompt_tokens"),
        (lambda: Convention(per_mac=3), "per_mac"),
        (lambda: replace(PAPER, head_rows="some"), "head_rows"),
        (lambda: tokens_per_layer(8, 4, 4, MergeSchedule((8,), (1,), (0.5,))), "layers"),
        (lambda: token_layer_fraction(8, MergeSchedule((9,), (1,), (0.5,))), "layers"),
        (lambda: entries_per_layer([5, 5], 0.0), "retention"),
        (lambda: entries_per_layer([5, 5], 1.2), "retention"),
        (lambda: entries_per_layer([5, 5], [0.5]), "retention"),
    ],
)
def test_invalid_input_names_the_value(call: Any, named: str) -> None:
    with pytest.raises(InvalidValueError, match=named):
        call()


# The command


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cost_command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_command_prints_full_and_compressed() -> None:
    code, text = run("llava-1.5-13b", "--layers", "15,23,31", "--windows", "4,2,1")
    assert code == 0
    assert "19.4020" in text
    assert "compressed" in text
    code, text = run("llava-1.5-13b", "--retention", ".05", "--json")
    parsed = json.loads(text)
    assert code == 0
    assert parsed["full"]["total_flops"] == cost_of("llava-1.5-13b").flops.total
    assert parsed["compressed"]["entries"] == [31] * 40


def test_command_takes_grids_and_names_the_rule_for_windows() -> None:
    merging = ("--layers", "15,23,31", "--windows", "6,4,2", "--json")

    def kept(*arguments: str) -> tuple[int, ...]:
        code, text = run("llava-next-13b", *merging, *arguments)
        assert code == 0
        return tuple(json.loads(text)["compressed"]["tokens"])

    entry = preset("llava-next-13b")
    assert kept() == cost_of("llava-next-13b", entry.schedules[0]).tokens
    square = cost_of("llava-next-13b", entry.schedules[0], partition="square").tokens
    assert kept("--partition", "square") == square != kept()
    assert kept("--vision-tokens", "2144", "--partition", "square") == square
    assert kept("--vision-tokens", "2144", "--grids", "24x24,32x48") == kept()
    # Without a count there is no line break.
    assert kept("--grids", "24x24,32x48")[0] == 576 + 32 * 48 + 48


def test_command_reads_a_config_from_disk(tmp_path: Path) -> None:
    config = LlavaConfig(
        text_config=LlamaConfig(num_hidden_layers=3),
        vision_config=CLIPVisionConfig(image_size=84, patch_size=14),
    )
    config.save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "config.json"):
        code, text = run(str(path), "--json", "--prompt", "12", "--generate", "4")
        assert code == 0
        assert json.loads(text)["full"]["tokens"] == [48, 48, 48]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["llava"], "unknown model"),
        (["llava-1.5-7b", "--layers", "a"], "whole numbers"),
        (["llava-1.5-7b", "--windows", "2"], "only together with --layers"),
        (["llava-1.5-7b", "--layers", "40"], "layer numbers below 32"),
        (["llava-1.5-7b", "--retention", "0"], "retention"),
        (["llava-1.5-7b", "--prompt", "-5"], "prompt_tokens"),
        (["llava-1.5-7b", "--grids", "24"], "24x24,32x48"),
        (["llava-1.5-7b", "--layers", "3", "--vision-tokens", "100"], "partition='square'"),
        (["llava-1.5-7b", "--layers", "3", "--windows", "25"], "at most 24 per side"),
    ],
)
def test_command_explains_what_is_wrong(arguments: list[str], message: str) -> None:
    code, text = run(*arguments)
    assert code != 0
    assert message in text


def test_command_refuses_a_folder_without_config(tmp_path: Path) -> None:
    code, text = run(str(tmp_path))
    assert code != 0
    assert "no usable model config" in text


def test_every_preset_has_a_cost() -> None:
    for name in presets():
        assert cost_of(name, convention=EXECUTED).flops.total > 0
