"""A sweep of the embedded model that is killed in the middle, and goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from analysis.asking.evaluation import evaluate
from analysis.asking.store import Store
from lightkv import TGVKV, VLM
from tests.workflow.conftest import WORKFLOW

SAMPLES = 12
METHODS = {"vanilla": None, "tgvkv 20 %": TGVKV(retention=0.2)}
START_SECONDS = 240
"""Within which the third batch is asked, on the slowest machine."""


def command(snakemake: str, folder: Path) -> list[str]:
    watched = [sys.executable, str(Path(__file__).with_name("lightkv_watched.py")), str(folder)]
    config = {
        "models": {"tiny": "embedded"},
        "tasks": ["embedded/read"],
        "methods": ["vanilla", "tgvkv"],
        "retentions": [0.2],
        "samples": SAMPLES,
        "batch_size": 3,
        "shards": 2,
        "artefacts": ["T-T5"],
        "lightkv": shlex.join(watched),
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    return [
        *(snakemake, "--snakefile", str(WORKFLOW / "Snakefile"), "--cores", "1"),
        *("--profile", str(WORKFLOW / "profiles/machine"), "--configfile", "sweep.yaml"),
    ]


@pytest.mark.timeout(600)
def test_a_killed_sweep_goes_on_and_asks_nothing_again(
    snakemake: str, tmp_path: Path, embedded: VLM
) -> None:
    started = subprocess.Popen(
        command(snakemake, tmp_path),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + START_SECONDS
    while not (tmp_path / "slow").exists() and time.monotonic() < until:
        assert started.poll() is None, "it ended by itself"
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    before = noted(tmp_path)
    assert len(before) == 3, "two batches are stored, the third was being asked"

    unlock = [*command(snakemake, tmp_path), "--unlock"]
    subprocess.run(unlock, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        command(snakemake, tmp_path), cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

    times = Counter((key, item) for key, items in noted(tmp_path) for item in items)
    again = {(before[2][0], item) for item in before[2][1]}
    assert {one for one, count in times.items() if count > 1} == again
    assert len(times) == SAMPLES * len(METHODS)
    expected = evaluate(
        embedded, ["embedded/read"], METHODS, samples=SAMPLES, batch_size=3, progress=False
    )
    with Store(tmp_path / "sweep/stores/merged", read_only=True) as store:
        rows = store.rows()
    columns = ["key", "item", "answer", "score", "kv_bytes", "generated_tokens"]
    pd.testing.assert_frame_equal(
        rows[columns].sort_values(columns[:2], ignore_index=True),
        expected[columns].sort_values(columns[:2], ignore_index=True),
    )
    summary = pd.read_csv(tmp_path / "sweep/tables/summary.csv")
    assert set(summary["method"]) == set(METHODS)
    assert set(summary["n"]) == {SAMPLES}
    assert (tmp_path / "sweep/report/tiny/index.html").is_file()
    with Store(tmp_path / "sweep/stores/figures/tiny", read_only=True) as store:
        drawn = store.rows()
    again = drawn.merge(rows, on=["key", "item"])
    assert len(again) == len(rows), "the figure is drawn from the same answers"
    assert again["seconds_x"].equals(again["seconds_y"])
    assert set(drawn["task"]) == {"embedded/read", "embedded/list"}, "and asked what it lacked"

    whole = subprocess.run(
        command(snakemake, tmp_path), cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert "Nothing to be done" in whole.stdout + whole.stderr


def test_a_fault_in_the_configuration_is_told_before_anything_runs(
    snakemake: str, tmp_path: Path
) -> None:
    assert "did you mean samples?" in refused(snakemake, tmp_path, "samples:", "sample:")
    assert not (tmp_path / "sweep").exists()


def refused(snakemake: str, folder: Path, words: str, others: str) -> str:
    """What a run says that fails once some words of the sweep are others."""
    started = command(snakemake, folder)
    file = folder / "sweep.yaml"
    file.write_text(file.read_text().replace(words, others))
    done = subprocess.run(started, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stdout + done.stderr


def noted(folder: Path) -> list[tuple[str, list[int]]]:
    """Batches that were asked so far."""
    return [tuple(json.loads(line)) for line in (folder / "asked.jsonl").read_text().splitlines()]
