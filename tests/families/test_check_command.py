"""``lightkv check``: tables, exit codes, the compatibility page."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lightkv.check import checks, tiny
from lightkv.check.checks import Outcome
from lightkv.check.cli import check_command
from lightkv.check.subject import Subject


@pytest.fixture
def only_fuyu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "ZOO", {"fuyu": tiny.ZOO["fuyu"]})


@pytest.mark.usefixtures("only_fuyu")
def test_the_page_names_versions_and_results(tmp_path: Path) -> None:
    page, readme = tmp_path / "compatibility.md", tmp_path / "README.md"
    readme.write_text("before\n<!-- compatibility -->\nold\n<!-- /compatibility -->\nafter\n")
    files = ["--write", str(page), "--write", str(readme)]
    result = CliRunner().invoke(check_command, ["--all-tiny", *files])
    assert result.exit_code == 0, result.output
    assert "24 of 24 checks" in result.output
    text = page.read_text()
    shown = readme.read_text()
    assert "| fuyu | FuyuForCausalLM | all 24 pass | all 24 pass |" in shown
    assert shown.startswith("before\n") and shown.endswith("\nafter\n") and "old" not in shown
    assert "| fuyu | FuyuForCausalLM | all 24 pass | all 24 pass |" in text
    for package in ("torch 2", "transformers 5", "nnsight 0"):
        assert package in text


@pytest.mark.usefixtures("only_fuyu")
def test_failures_and_raised_errors_exit_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: Subject, name: str) -> Outcome:
        return Outcome(name, False, "made to fail")

    def broken(_: Subject, __: str) -> Outcome:
        raise RuntimeError("made to raise")

    monkeypatch.setattr(checks, "CHECKS", {"wrong": wrong, "broken": broken})
    page = tmp_path / "compatibility.md"
    result = CliRunner().invoke(check_command, ["--all-tiny", "--write", str(page)])
    assert result.exit_code == 1
    assert "made to fail" in result.output
    assert "RuntimeError: made to raise" in result.output
    assert "fails: broken, wrong" in page.read_text()


def test_the_embedded_model_passes_with_its_processor() -> None:
    result = CliRunner().invoke(check_command, [])
    assert result.exit_code == 0, result.output
    assert result.output.count("ok  ") == 24


def test_impossible_calls_are_errors() -> None:
    assert CliRunner().invoke(check_command, ["--write", "x.md"]).exit_code == 2
    missing = CliRunner().invoke(check_command, ["no-such-folder"])
    assert missing.exit_code == 1
    assert "HF_ENDPOINT" in missing.output
