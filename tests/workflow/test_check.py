"""Names of a sweep are checked before its first job, without a model and without data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import lightkv
from figures.check_cli import check_sweep_command
from lightkv.errors import InputError
from tests.workflow.conftest import WORKFLOW
from tests.workflow.test_run import refused
from workflow.sweep import Sweep

LEAST: dict[str, Any] = {
    "models": {"tiny": "embedded"},
    "tasks": ["embedded/read"],
    "methods": ["vanilla", "tgvkv"],
}


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(lightkv, "load", refused)


def checked(**changes: Any) -> str:
    """What the command of a sweep says."""
    words = shlex.split(Sweep.read({**LEAST, **changes}).check())
    assert words[:2] == ["lightkv", "check-sweep"]
    done = CliRunner().invoke(
        check_sweep_command, words[2:], catch_exceptions=False, standalone_mode=False
    )
    return done.output


def test_names_that_there_are_pass() -> None:
    file = WORKFLOW / "config" / "embedded.yaml"
    shipped = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert checked(**shipped) == "every name can be used\n"
    assert checked() == "every name can be used\n", "retentions are those of lightkv evaluate"
    assert checked(methods=["lightkv|tgvkv:retention=0.5"], tasks=["all"]) == checked()
    # What depends on the model's depth is checked by the jobs: a layer that a model of 32 has and
    # one of 8 has not, and a share for each of four layers.
    deep = ["fastv:layer=15", "prefixkv:retention=0.5;shares=(0.25,0.25,0.25,0.25)"]
    assert checked(methods=deep) == checked()


def test_every_fault_is_told_at_once_with_the_nearest_names() -> None:
    with pytest.raises(InputError) as told:
        checked(
            models={"tiny": "embedded", "lost": "./nowhere"},
            tasks=["embedded/raed", "embedded/read", "folder:lost.jsonl"],
            methods=["vanilla", "tgvk", "tgvkv:retention=1.5", "lightkv:widnows=4"],
            artefacts=["X-1", "T-T99"],
        )
    head, *faults = str(told.value).splitlines()
    assert head == "the sweep can't be run:"
    for fault, words in zip(
        faults,
        (
            "there is no folder './nowhere'",
            "unknown task 'embedded/raed'; did you mean embedded/read",
            "lost.jsonl",
            "unknown method 'tgvk'; did you mean tgvkv",
            "retention is 1.5",
            "widnows",
            "unknown artefact 'T-T99'; did you mean",
        ),
        strict=True,
    ):
        assert words in fault


def test_nothing_is_asked_of_a_sweep_with_an_unknown_name(snakemake: str, tmp_path: Path) -> None:
    said = refused(snakemake, tmp_path, "- tgvkv", "- tgvk")
    assert "unknown method 'tgvk'; did you mean tgvkv" in said
    assert not (tmp_path / "asked.jsonl").exists()
    assert not (tmp_path / "sweep/stores").exists()
