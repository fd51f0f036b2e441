"""The memory benchmark: what it measures, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.cli import COMMANDS
from analysis.timing.bench_cli import bench_group
from analysis.timing.memory import ALLOCATOR
from analysis.timing.probe_memory import build, measure_probe_memory
from lightkv.errors import InvalidValueError, StoreError, UnknownNameError

SMALL = "llava-onevision-qwen2-0.5b"


def test_block_sums_add_little_and_maps_add_what_they_weigh() -> None:
    sums = measure_probe_memory(SMALL, layers=1, tokens=256)
    assert sums.kind == ALLOCATOR and sums.quantities == ("block_sum",)
    assert sums.plain > sums.weights > 0 and sums.added < 0.05


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    assert COMMANDS["bench"] == "analysis.timing.bench_cli:bench_group"
    out = tmp_path / "memory.json"
    arguments = ["probe", "--shape", SMALL, "--layers", "1", "--tokens", "64", "--out", str(out)]
    result = CliRunner().invoke(bench_group, arguments)
    assert result.exit_code == 0, result.output
    assert "random weights" in result.output and "own peak" in result.output
    measured = json.loads(out.read_text())
    assert measured["added"] == pytest.approx(
        (measured["probed"] - measured["plain"]) / measured["plain"]
    )
    missing = CliRunner().invoke(bench_group, ["probe", "--out", str(tmp_path / "no" / "f.json")])
    assert isinstance(missing.exception, StoreError)


def test_wrong_settings() -> None:
    with pytest.raises(InvalidValueError, match="square"):
        build(SMALL, layers=1, tokens=250)
    with pytest.raises(InvalidValueError, match="layers"):
        build(SMALL, layers=99, tokens=64)
    with pytest.raises(InvalidValueError, match="dtype"):
        build(SMALL, layers=1, tokens=64, dtype="int3")
    with pytest.raises(UnknownNameError, match="quantity"):
        measure_probe_memory(SMALL, quantities=["nothing"])
