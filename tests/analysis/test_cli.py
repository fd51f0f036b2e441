"""Methods written as text, and the commands from argument to result."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import lightkv
from analysis.asking.evaluate_cli import evaluate_command
from analysis.asking.method_grid import compressors
from analysis.asking.store import Store
from analysis.cli import COMMANDS
from analysis.timing.latency_cli import latency_command
from lightkv import TGVKV, VLM, LightKV
from lightkv.catalogue import methods
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError, LightKVError, StoreError, UnknownNameError
from lightkv.pruning import FastV

FACTS = ModelFacts(8, 4, 4, 128)


def test_names_with_retentions_schedules_and_options() -> None:
    grid = compressors(
        ["vanilla", "tgvkv", "lightkv", "fastv:removed=0.75; layer=1", "tgvkv:retention=0.3"],
        [0.5, 0.05],
        FACTS,
    )
    light = LightKV((2, 4, 5), (4, 2, 1), (0.5, 0.5, 0.5))
    assert grid == {
        "vanilla": None,
        "tgvkv 50 %": TGVKV(retention=0.5),
        "tgvkv 5 %": TGVKV(retention=0.05),
        "lightkv": light,
        "fastv:removed=0.75; layer=1": FastV(layer=1, removed=0.75),
        "tgvkv:retention=0.3": TGVKV(retention=0.3),
    }


def test_compositions_and_bare_words() -> None:
    grid = compressors(["lightkv:guidance=uniform|tgvkv"], [0.2], FACTS)
    (both,) = grid.values()
    light = LightKV((2, 4, 5), (4, 2, 1), (0.5, 0.5, 0.5), guidance="uniform")
    assert both == light | TGVKV(retention=0.2)


def test_a_schedule_of_ones_own() -> None:
    spec = "lightkv:layers=(3,);windows=(2,);ratios=(0.25,)"
    assert compressors([spec], [], FACTS) == {spec: LightKV((3,), (2,), (0.25,))}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("tgv", UnknownNameError, "tgvkv"),
        ("lightkv|", UnknownNameError, "unknown method ''"),
        ("tgvkv:retention", InvalidValueError, "field=value"),
        ("tgvkv:=3", InvalidValueError, "field=value"),
        ("lightkv:colour=3", InvalidValueError, "colour"),
        ("lightkv:layers=(3,)", InvalidValueError, "windows"),
        ("tgvkv", InvalidValueError, "at least one for tgvkv"),
    ],
)
def test_badly_written_methods(spec: str, error: type[LightKVError], message: str) -> None:
    with pytest.raises(error, match=message):
        compressors([spec], [], FACTS)


def run(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)  # type: ignore[arg-type]


@pytest.fixture
def loaded(embedded: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightkv, "load", lambda *_, **__: embedded, raising=False)


@pytest.mark.usefixtures("loaded")
def test_evaluate_stores_prints_and_resumes(tmp_path: Path) -> None:
    arguments = ["--samples", "2", "--method", "vanilla", "--method", "tgvkv"]
    arguments += ["--retention", "0.2", "--out", str(tmp_path)]
    first = run(evaluate_command, *arguments)
    assert first.exit_code == 0, first.output
    assert "tgvkv 20 %" in first.stdout
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert summary["method"].tolist() == ["vanilla", "tgvkv 20 %"]
    with Store(tmp_path, read_only=True) as store:
        assert len(store.rows()) == 4
    again = run(evaluate_command, *arguments)
    assert again.stdout == first.stdout
    assert "4/4" in again.stderr


def test_evaluate_loads_no_weights_when_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--samples", "1", "--method", "vanilla", "--out", str(tmp_path)]
    first = run(evaluate_command, *arguments)
    assert first.exit_code == 0, first.output
    assert "not loaded" not in first.stderr

    def read(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("lightkv.loading.model_of", read)
    again = run(evaluate_command, *arguments)
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert "nothing was left to ask, so the model was not loaded" in again.stderr
    assert run(evaluate_command, *arguments, "--seed", "1").exception is not None


@pytest.mark.usefixtures("loaded")
def test_latency_prints_and_writes(tmp_path: Path) -> None:
    arguments = ["--method", "vanilla", "--new-tokens", "2", "--warmup", "0", "--repeats", "1"]
    result = run(latency_command, *arguments, "--out", str(tmp_path / "runs.csv"))
    assert result.exit_code == 0, result.output
    assert "ttft_ms_mean" in result.stdout
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 1


@pytest.mark.usefixtures("loaded")
def test_commands_raise_typed_errors(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    cases = [
        (evaluate_command, ["--task", "embedded/reed"], UnknownNameError),
        (evaluate_command, ["--out", str(file / "x")], StoreError),
        (evaluate_command, ["--samples", "-1"], InvalidValueError),
        (latency_command, ["--image", "a.png"], LightKVError),
        (latency_command, ["--out", str(tmp_path / "no" / "runs.csv")], StoreError),
        (latency_command, ["--repeats", "0"], InvalidValueError),
    ]
    for command, arguments, error in cases:
        assert isinstance(run(command, *arguments).exception, error), arguments


def test_commands_can_be_found() -> None:
    assert {"evaluate", "latency"} <= set(COMMANDS)


def test_all_methods_all_tasks_all_protocols_can_be_named() -> None:
    grid = compressors(["all"], [0.5, 0.05], FACTS)
    assert grid["vanilla"] is None
    for name, method in methods().items():
        labels = [label for label in grid if label.split(" ")[0] == name]
        swept = method.takes_retention or method.by_share is not None
        assert len(labels) == (2 if swept else 1), name
    assert grid["fastv 5 %"] == FastV(removed=0.95)
