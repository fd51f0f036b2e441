"""lmms-eval asks our model through the plugin: the same answers and scores as our evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from analysis.asking.evaluation import evaluate
from analysis.scoring.benchmarks import benchmark_scores
from analysis.tasks import task
from lightkv import TGVKV, VLM
from lightkv.errors import InvalidValueError, UnknownNameError, UnsupportedError
from tests.closeness import assert_close

ROOT = Path(__file__).parents[2]
TASKS = ("tiny_pope", "tiny_mme", "tiny_docvqa", "tiny_vizwiz")
ENTRY = "analysis.lmms.manifest:manifest"


def test_the_entry_point_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"lightkv": ENTRY}


@pytest.fixture(scope="module")
def harnessed(benchmarks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the harness's command wrote its results."""
    out = tmp_path_factory.mktemp("harness")
    # An installed checkout has this entry point; a working folder on the path has not.
    info = out / "site" / "lightkv_plugin-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightkv-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[lmms_eval.models]\nlightkv = {ENTRY}\n")
    paths = [str(ROOT), str(out / "site"), *filter(None, sys.path)]
    command = [sys.executable, "-m", "lmms_eval", "--model", "lightkv"]
    command += ["--model_args", "method=tgvkv,retention=0.2", "--tasks", ",".join(TASKS)]
    command += ["--include_path", str(benchmarks), "--batch_size", "4"]
    command += ["--log_samples", "--output_path", str(out / "results")]
    done = subprocess.run(
        command,
        cwd=out,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out / "results"


@pytest.mark.parametrize("name", TASKS)
def test_both_doors_give_the_same_answers_and_scores(
    harnessed: Path, benchmarks: Path, embedded: VLM, name: str
) -> None:
    ours = evaluate(
        embedded,
        [task(f"lmms:{benchmarks / name}.yaml")],
        {"tgvkv": TGVKV(retention=0.2)},
        samples=None,
        batch_size=3,
        progress=False,
    )
    (file,) = harnessed.rglob(f"*samples_{name}.jsonl")
    samples = {one["doc_id"]: one for one in map(json.loads, file.read_text().splitlines())}
    told = {int(item): text for item, text in zip(ours["item"], ours["answer"], strict=True)}
    assert {number: _text(one["filtered_resps"]) for number, one in samples.items()} == told
    (results,) = harnessed.rglob("*results.json")
    theirs = json.loads(results.read_text())["results"][name]
    scores = benchmark_scores(ours)
    scores.pop("mme_score", None)  # MME's total, which the harness does not add up
    for score, estimate in scores.items():
        assert_close(estimate.value, theirs[f"{score},none"], 1e-9, scale=1.0)


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else _text(answer[0])


def test_settings_are_checked() -> None:
    from analysis.lmms.chat import LightKVChat

    with pytest.raises(InvalidValueError, match="model_args is \\['metod'\\]"):
        LightKVChat(metod="tgvkv")
    with pytest.raises(InvalidValueError, match="batch_size is 'auto'"):
        LightKVChat(batch_size="auto")
    with pytest.raises(UnknownNameError, match="tgvkv"):
        LightKVChat(method="tgv")
    with pytest.raises(InvalidValueError, match="retention is 'none'"):
        LightKVChat(method="tgvkv")


def test_what_it_does_not_do_is_refused() -> None:
    from analysis.lmms.chat import LightKVChat, _parts

    model = LightKVChat(max_batch_size=4)
    for ask in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(UnsupportedError, match="lightkv"):
            ask([])
    text, picture = {"type": "text", "text": "q"}, {"type": "image", "url": "p"}
    system = {"role": "system", "content": [{"type": "text", "text": "s"}]}
    assert _parts("t", [system, {"role": "user", "content": [picture, text]}]) == (
        ("p",),
        "q",
        "s",
    )
    for turns in (
        [{"role": "user", "content": [text, picture]}],
        [{"role": "user", "content": [{"type": "video", "url": "v"}, text]}],
        [{"role": "user", "content": [text]}, {"role": "assistant", "content": [text]}],
    ):
        with pytest.raises(UnsupportedError, match=r"t asks in several|t shows"):
            _parts("t", turns)
