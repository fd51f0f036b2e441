"""Simulated power of the rules, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from click.testing import CliRunner

from analysis.asking.store import FACT
from analysis.simulation.pages import section
from analysis.tasks import task
from figures import power_simulation
from figures.artefacts import artefact
from figures.artefacts.question_length import binned
from figures.cli import main

DOCS = Path(__file__).parents[2] / "docs"
QUARTER = 4


def test_the_page_shows_the_table_of_the_command(tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    done = CliRunner().invoke(main, ["simulate", "power", "--out", str(out)])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out)
    shipped = pd.read_csv(DOCS / "measurements" / "simulated_power.csv")
    pd.testing.assert_frame_equal(frame.drop(columns="share"), shipped.drop(columns="share"))
    assert (frame["share"] - shipped["share"]).abs().max() < 0.01
    page = (DOCS / "reproducing.md").read_text(encoding="utf-8")
    assert section(page, "power") == power_simulation.readable(shipped)


def test_both_score_the_same_and_differ_in_few_questions() -> None:
    ours, whole = power_simulation.answers(np.random.default_rng(0), 100_000)
    assert abs(ours.mean() - 0.92) < 0.003 and abs(whole.mean() - 0.92) < 0.003
    assert abs((ours != whole).mean() - 0.03) < 0.002


def test_numbers_of_questions_are_those_of_the_plan() -> None:
    """Of a quarter of the planned questions, the fewest that a part has."""
    videos, lengths = power_simulation.FEWEST.values()
    planned = artefact("T-T9").planned
    asked = [
        one.facts
        for kind in ("order", "moves", "changes")
        for one in task(f"embedded-qwen:{kind}").items(
            planned["samples"] // QUARTER, planned["seed"]
        )
    ]
    plainly = sum(one["hint"] == "none" and not one["paraphrased"] for one in asked)
    assert 0.85 < QUARTER * plainly / videos < 1.15
    planned = artefact("T-F6").planned
    items = task("embedded-qwen:legend").items(planned["samples"] // QUARTER, planned["seed"])
    rows = [(one.question, one.answers, one.facts["tokens"]) for one in items]
    frame = pd.DataFrame(rows, columns=["question", "reference", f"{FACT}tokens"])
    assert 0.85 < QUARTER * binned(frame)["bin"].value_counts().min() / lengths < 1.15
