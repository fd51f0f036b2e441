"""Replay of the recorded LightKV cases, and of a folder of cases as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lightkv.errors import InputError
from lightkv.golden.cli import verify_command
from lightkv.golden.lightkv import replay, skip_reason
from lightkv.golden.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    case
    for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
    if case["method"] == "lightkv"
]
CHAIN = next(case for case in CASES if case["name"] == "p17_144_chain421")


def arrays_of(case: dict[str, Any]) -> dict[str, Any]:
    with np.load(GOLDEN / case["file"]) as stored:
        return dict(stored)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    assert skip_reason(case) is None
    assert replay(case, arrays_of(case)) == []


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("s0_hidden_out", 1e-5, "differ"),
        ("s1_hidden_out", 1e-5, "stage 1: "),
        ("s0_pairs", 1, "pairs"),
        ("s0_kept", 1, "kept"),
        ("s0_spans_out", 1, "spans"),
        ("s0_window", 1, "windows"),
        ("s0_token_weight", 1e-2, "token weights"),
        ("s2_source_sorted", 1, "source matrix"),
    ],
)
def test_every_recorded_array_is_compared(key: str, change: float, message: str) -> None:
    arrays = arrays_of(CHAIN)
    arrays[key] = arrays[key].copy()
    arrays[key].flat[0] += arrays[key].dtype.type(change)
    assert any(message in line for line in replay(CHAIN, arrays))


def test_only_malformed_spans_are_skipped_and_only_as_quirks() -> None:
    stage = {"spans_in": [[3, 40]], "spans_out": [[3, 20]], "S_in": 30}
    assert "beyond" in str(skip_reason({"tags": ["quirk"], "stages": [stage]}))
    assert skip_reason({"tags": [], "stages": [stage]}) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small cases: one right, one whose file belongs to another case."""
    small = [case for case in CASES if case["name"] in ("p15_35_w2_r25", "p16_35_w4_skip")]
    for case in small:
        (tmp_path / case["file"]).write_bytes((GOLDEN / case["file"]).read_bytes())
    broken = {**small[0], "name": "broken", "stages": [{"w": 2}]}
    unknown = {**small[0], "name": "unknown", "method": "magic"}
    quirk = {
        **small[0],
        "name": "quirk",
        "tags": ["quirk"],
        "stages": [{"spans_in": [[0, 99]], "spans_out": [], "S_in": 5}],
    }
    index = {"meta": {}, "cases": [*small, broken, unknown, quirk]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_one_broken_case_does_not_end_the_run(folder: Path) -> None:
    report = verify(folder)
    assert (report.passed, report.failed, report.skipped) == (2, 2, 1)
    result = CliRunner().invoke(verify_command, [str(folder)])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[-1] == "2 passed, 2 failed, 1 skipped"
    assert any(line.startswith("broken: KeyError") for line in lines)
    assert any(line.startswith("quirk: skipped, ") for line in lines)


def test_a_clean_folder_ends_with_success(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["cases"] = index["cases"][:2]
    (folder / "index.json").write_text(json.dumps(index))
    result = CliRunner().invoke(verify_command, [str(folder)])
    assert (result.exit_code, result.output) == (0, "2 passed, 0 failed, 0 skipped\n")


def test_missing_and_damaged_files_are_typed_errors(folder: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        verify(folder / "nowhere")
    case = folder / "lightkv_p15_35_w2_r25.npz"
    case.write_bytes(case.read_bytes()[:1000])
    with pytest.raises(InputError, match="can't be read"):
        verify(folder)
    case.unlink()
    with pytest.raises(InputError, match="not there"):
        verify(folder)
    (folder / "index.json").write_text("[]")
    with pytest.raises(InputError, match="not an index"):
        verify(folder)
    (folder / "index.json").unlink()
    result = CliRunner().invoke(verify_command, [str(folder)])
    assert result.exit_code == 1
    assert "index.json is missing" in result.output
