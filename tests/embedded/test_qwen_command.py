"""`lightkv train-embedded --model qwen` from nothing to a card, and the model without weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from scipy.stats import binomtest

import lightkv
from analysis.provenance.machine import model_is_here
from lightkv.commands.train_embedded import train_embedded_command
from lightkv.embedded import location
from lightkv.embedded.evaluate import interval
from lightkv.embedded.publish import read_metrics
from lightkv.embedded.qwen import scoring
from lightkv.embedded.qwen.card import describe_options
from lightkv.embedded.qwen.rates import PARTS
from lightkv.embedded.qwen.scoring import SCORES, Scoring, score
from lightkv.errors import ModelError

ROOT = Path(lightkv.__file__).parents[1]
ASKED = ("color", "legend", "order")
PLAIN = {"batch_factor": 1, "compile": False}

# Runs the command where nothing but what it says it needs can be imported.
PROGRAM = """
import importlib.machinery, importlib.util, sys

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else super().find_spec(name, path, target)

sys.meta_path = [
    Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
]
from lightkv.embedded.qwen import scoring
scoring.KINDS = {asked!r}
from figures.cli import main

assert importlib.util.find_spec("scipy") is None
main()
"""
BLOCKED = {
    *("nnsight", "greenlet", "scipy", "pandas", "xarray", "h5netcdf", "h5py", "sklearn"),
    *("rouge_score", "anls_star", "pycocoevalcap", "matplotlib", "seaborn", "papermill"),
    *("nbconvert", "ipykernel", "psutil", "accelerate", "torchvision"),
}


def _bare(*arguments: str) -> str:
    program = PROGRAM.format(blocked=BLOCKED, asked=ASKED)
    command = [sys.executable, "-c", program, "train-embedded", "--model", "qwen", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    _bare("--quick", "--steps", "4", "--evaluate", "2", "--out", str(out))
    return out


def test_one_command_on_a_bare_machine_trains_scores_and_writes_the_card(trained: Path) -> None:
    metrics = read_metrics(trained)
    assert tuple(metrics["kinds"]) == ASKED
    assert set(metrics["by_hint"]) == {"order"} and metrics["legend_by_length"]
    assert [stage["steps"] for stage in metrics["training"]["stages"]] == [2, 2]
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert "--model qwen --steps 4 --device cpu --workers 0`" in card and "| `legend` |" in card
    assert "--batch-factor" not in card and "bfloat16" not in card
    assert (trained / "training_log.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("device", "bfloat16", "options"),
    [
        ("cpu", False, ""),
        ("cpu", True, " --bfloat16"),
        ("cuda", True, ""),
        ("cuda", False, " --no-bfloat16"),
    ],
)
def test_the_card_names_a_precision_that_is_not_the_default(
    device: str, bfloat16: bool, options: str
) -> None:
    training = {"budget": {"minutes": 9.5, "steps": None}, "device": device, "workers": 2}
    told = describe_options(training | PLAIN | {"bfloat16": bfloat16})
    assert told == f"--minutes 9.5 --device {device} --workers 2{options}"


def test_the_card_names_what_the_batches_and_layers_were_changed_by() -> None:
    training = {"budget": {"minutes": 180.0, "steps": None}, "device": "cpu", "workers": 0}
    told = describe_options(training | {"batch_factor": 0.0625, "compile": True, "bfloat16": False})
    assert told == "--minutes 180 --device cpu --workers 0 --batch-factor 0.0625 --compile"


def test_the_folder_loads(trained: Path) -> None:
    vlm = lightkv.load(trained)
    assert vlm.model.config.model_type == "qwen3_vl"


def test_finished_kinds_are_not_asked_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "KINDS", ASKED)
    kept = json.loads((trained / "state" / SCORES).read_text())
    kept["parts"].pop("legend")
    (tmp_path / SCORES).write_text(json.dumps(kept))
    asked: list[str] = []

    def note(task: tuple[Scoring, str]) -> tuple[str, Any]:
        asked.append(task[1])
        return task[1], json.loads((trained / "state" / SCORES).read_text())["parts"][task[1]]

    monkeypatch.setattr(scoring, "_ask", note)
    metrics = score(Scoring(trained, 2, 0), tmp_path)
    assert asked == ["legend"] and tuple(metrics["kinds"]) == ASKED
    score(Scoring(trained, 2, 0), tmp_path)
    assert asked == ["legend"]
    score(Scoring(trained, 2, 1), tmp_path)
    assert asked == ["legend", *ASKED]


def test_a_dry_run_measures_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        train_embedded_command, ["--model", "qwen", "--quick", "--dry"], catch_exceptions=False
    )
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert lines[0]["torch"] == torch.__version__ and lines[1]["batches_per_second"] > 0
    assert [line["part"] for line in lines[2:]] == list(PARTS)
    assert all(line["steps_per_second"] > 0 and line["peak_gb"] is None for line in lines[2:])
    for line in lines[2:]:
        times = list(line["host_ms"].values())
        assert len(times) == 5 and times == sorted(times, reverse=True) and times[-1] > 0
        assert any("attention" in name for name in line["host_ms"])
        assert torch.cuda.is_available() or line["kernel_ms"] == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_else() -> None:
    result = CliRunner().invoke(train_embedded_command, ["--device", "cuda"])
    assert result.exit_code == 2 and "torch sees no GPU" in result.output


@pytest.mark.parametrize("kind", ["qwen", "fuyu"])
def test_weights_that_do_not_ship_are_refused_in_words(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"embedded-{kind}"
    monkeypatch.setitem(location.SHIPPED, name, tmp_path / "none")
    with pytest.raises(ModelError, match=rf"train-embedded --model {kind} .* lightkv\.load"):
        lightkv.load(name)
    assert not model_is_here(name) and model_is_here("embedded")


@pytest.mark.parametrize(("right", "count"), [(0, 8), (1, 8), (7, 8), (8, 8), (451, 500), (0, 1)])
def test_intervals_are_those_of_scipy(right: int, count: int) -> None:
    exact = binomtest(right, count).proportion_ci(0.95, method="exact")
    assert interval(right, count) == pytest.approx((exact.low, exact.high), abs=1e-9)
