"""A table of a paper on its own benchmarks, by one command."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import lightkv
from analysis.asking.store import Store
from analysis.lmms import harness
from analysis.tasks import check_task, task
from figures.artefacts import artefact, artefacts
from figures.benchmarks import Group, grouped, measure, sources, targets
from figures.reproduce_cli import reproduce_command
from lightkv import VLM
from lightkv.errors import (
    InputError,
    InvalidValueError,
    LightKVError,
    UnknownNameError,
    UnsupportedError,
)
from tests.lmms.conftest import COUNT, rows_of, write_benchmark

LITE = {
    "chartqa_lite": "tiny_chartqa",
    "docvqa_val_lite": "tiny_docvqa",
    "vizwiz_vqa_val_lite": "tiny_vizwiz",
    "textvqa_val_lite": "tiny_vizwiz",
}
OTHERS = {
    "mme": "tiny_mme",
    "pope": "tiny_pope",
    "gqa_lite": "tiny_vizwiz",
    "scienceqa_img": "tiny_vizwiz",
    "coco2017_cap_val_lite": "tiny_coco",
    "textcaps_val_lite": "tiny_textcaps",
}
SETTINGS = 9
"""The full cache, and two methods at four budgets."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Task files with the names of the harness's, in the formats of its data."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, tiny in (LITE | OTHERS).items():
        made = write_benchmark(folder, tiny, rows_of(tiny), task=name)
        made.replace(folder / f"{name}.yaml")
    yield folder


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What the command says, and where its results and report lie."""
    out = tmp_path_factory.mktemp("made")
    places = ["--results", str(out / "results"), "--out", str(out / "report")]
    arguments = ["T-T8", "--benchmarks", "--benchmarks-from", str(folder), *places]
    return CliRunner().invoke(reproduce_command, arguments), out


@pytest.mark.timeout(900)
def test_it_says_beforehand_what_it_takes(made: tuple[Result, Path]) -> None:
    result, _ = made
    assert result.exit_code == 0, result.output
    before, _, after = result.stderr.partition("[1/1]")
    assert "data set: files of your own (parquet)" in before
    assert f"lmms/docvqa_val_lite: 8 questions under {SETTINGS} settings" in before
    assert "at most 32 tokens" in before, "remarks of the benchmarks are told"
    count = SETTINGS * len(LITE) * COUNT
    assert f"{count - COUNT:,} of {count:,} answers are to be asked, about" in before
    assert "done in" in after


def test_the_table_has_the_benchmarks_beside_the_print(made: tuple[Result, Path]) -> None:
    _, out = made
    (published,) = (out / "results/notebooks").glob("*/T-T8")
    table = (published / "table.csv").read_text()
    for name in LITE:
        assert f"here: lmms/{name}" in table
    assert "here (embedded)" in table and "paper (LLaVA-1.5-7B)" in table
    plotted = pd.read_csv(published / "plotted.csv")
    assert set(plotted["metric"]) == {"relaxed_overall", "anls", "exact_match"}
    assert not plotted.duplicated(["task", "compared", "retention"]).any()
    record = json.loads((published / "record.json").read_text())
    assert record["parameters"]["samples"] == 0
    (verdict,) = record["verdicts"]
    assert "8 questions; at least 10 are needed" in verdict["reason"], "judged on the benchmarks"


def test_every_row_names_where_its_question_comes_from(made: tuple[Result, Path]) -> None:
    _, out = made
    (published,) = (out / "results/notebooks").glob("*/T-T8")
    rows = pd.read_csv(published / "rows.csv")
    assert len(rows) == SETTINGS * len(LITE) * COUNT
    assert rows["task_fingerprint"].notna().all()
    for packed in rows["source"]:
        source = json.loads(packed)
        assert source["path"] == "parquet" and len(source["revision"]) == 64
    with Store(out / "results", read_only=True) as store:
        assert len(store.rows()) == len(rows), "the first batch is one of them"


def test_the_model_of_the_first_batch_is_let_go(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Any]] = []
    load = lightkv.load

    def noted(*arguments: Any, **options: Any) -> VLM:
        vlm = load(*arguments, **options)
        opened.append(weakref.ref(vlm.model))
        return vlm

    monkeypatch.setattr(lightkv, "load", noted)
    (whole,) = grouped(targets(["T-T8"]), False, folder)
    extent = measure([Group(whole.artefacts, whole.tasks[:1])], {}, tmp_path, print)
    assert extent.settings == {"lmms/chartqa_lite": SETTINGS}
    assert (extent.asks, extent.stored, extent.left) == (SETTINGS * COUNT, COUNT, 8 * COUNT)
    assert extent.seconds > 0
    assert [one() for one in opened] == [None]


def test_names_are_checked_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> None:
        raise AssertionError("data were loaded")

    monkeypatch.setattr("analysis.lmms.task.loaded", refused)
    check_task("lmms:pope")
    with pytest.raises(UnknownNameError, match="'popee'; did you mean pope"):
        check_task("lmms:popee")
    with pytest.raises(UnsupportedError, match="videos"):
        check_task("lmms:videott_paraphrase_oe")
    with pytest.raises(InvalidValueError, match="system=TEXT"):
        check_task("lmms:pope,system=")
    with pytest.raises(AssertionError, match="data were loaded"):
        task("lmms:pope")


def test_names_are_those_of_the_harness() -> None:
    known = harness.manager().all_subtasks
    for one in artefacts():
        for benchmark in one.benchmarks:
            assert {benchmark.full, benchmark.lite} <= set(known)


def test_whole_benchmarks_by_a_flag() -> None:
    (lite,) = grouped(targets(["T-T2"]), False, None)
    assert lite.tasks[0] == "lmms:chartqa_lite"
    (full,) = grouped(targets(["T-T2", "T-T8", "T-T2"]), True, None)
    assert full.artefacts == ("T-T2", "T-T8")
    assert full.tasks == (
        *("lmms:chartqa", "lmms:docvqa_val", "lmms:vizwiz_vqa_val", "lmms:textvqa_val"),
    )


def test_artefacts_are_asked_their_own_benchmarks_only() -> None:
    """In whatever order they name them; two scores of one benchmark are one run."""
    captions, short = grouped(targets(["T-T3", "T-T6", "T-T7"]), False, None)
    assert captions.artefacts == ("T-T3", "T-T7")
    assert sorted(captions.tasks) == ["lmms:coco2017_cap_val_lite", "lmms:textcaps_val_lite"]
    assert (short.artefacts, short.tasks) == (("T-T6",), ("lmms:mme", "lmms:pope", "lmms:gqa_lite"))


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Tables whose scores no question has."""
    out = tmp_path_factory.mktemp("scored")
    places = ["--results", str(out / "results"), "--out", str(out / "report"), "--jobs", "1"]
    arguments = ["T-T6", "T-T7", "--benchmarks", "--benchmarks-from", str(folder), *places]
    return CliRunner().invoke(reproduce_command, arguments), out


@pytest.mark.timeout(900)
def test_scores_of_whole_sets_stand_beside_the_print(scored: tuple[Result, Path]) -> None:
    result, out = scored
    assert result.exit_code == 0, result.output
    # CDPruner, which the model refuses, is counted: four pruners and TGV-KV at three sizes.
    assert "lmms/pope: 8 questions under 16 settings" in result.stderr
    assert "lmms/textcaps_val_lite: 8 questions under 19 settings" in result.stderr
    (pruned,) = (out / "results/notebooks").glob("*/T-T6")
    rows = pd.read_csv(pruned / "rows.csv")
    assert set(rows["task"]) == {"lmms/mme", "lmms/pope", "lmms/gqa_lite"}
    assert len(rows) == 3 * 13 * COUNT
    plotted = pd.read_csv(pruned / "plotted.csv")
    assert set(plotted["metric"]) == {"mme_score", "pope_f1_score", "exact_match"}
    assert "here: lmms/mme" in (pruned / "table.csv").read_text()
    (captions,) = (out / "results/notebooks").glob("*/T-T7")
    data = pd.read_csv(captions / "plotted.csv")
    assert set(data["captions"]) == {"COCO", "TextCaps"}
    assert set(data["metric"]) == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"}
    for made in (pruned, captions):
        (verdict,) = json.loads((made / "record.json").read_text())["verdicts"]
        assert verdict["outcome"] in {"undecided", "not testable here"}


@pytest.fixture(scope="module")
def varied(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Tables of variants of one method, on two of four pictures of each benchmark."""
    out = tmp_path_factory.mktemp("varied")
    places = ["--results", str(out / "results"), "--out", str(out / "report"), "--jobs", "1"]
    wanted = ["T-T1", "T-T5", "L-T5", "--benchmarks", "--benchmarks-from", str(folder)]
    arguments = [*wanted, "--samples", str(COUNT // 2), *places]
    return CliRunner().invoke(reproduce_command, arguments), out


@pytest.mark.timeout(900)
def test_variants_of_one_method_are_asked_and_judged(varied: tuple[Result, Path]) -> None:
    result, out = varied
    assert result.exit_code == 0, result.output
    for name in ("chartqa_lite", "textvqa_val_lite", "scienceqa_img", "coco2017_cap_val_lite"):
        assert f"lmms/{name}: {COUNT // 2} questions under " in result.stderr
    scores = {
        "T-T1": {"relaxed_overall", "exact_match"},
        "T-T5": {"relaxed_overall", "coco_ROUGE_L"},
        "L-T5": {
            *("coco_CIDEr", "exact_match", "mme_cognition_score", "mme_perception_score"),
            *("pope_accuracy", "pope_f1_score"),
        },
    }
    for name, metrics in scores.items():
        (made,) = (out / "results/notebooks").glob(f"*/{name}")
        plotted = pd.read_csv(made / "plotted.csv")
        assert set(plotted["metric"]) == metrics
        assert set(plotted["task"]) == {f"lmms/{one.lite}" for one in artefact(name).benchmarks}
        table = (made / "table.csv").read_text()
        assert "here (embedded model) | " in table and "paper (" in table
        verdicts = json.loads((made / "record.json").read_text())["verdicts"]
        assert {one["outcome"] for one in verdicts} <= {"undecided", "not testable here"}


def test_what_is_downloaded_is_named() -> None:
    lines = sources(["lmms:pope", "lmms:chartqa", "lmms:pope"], "someone/a-model")
    assert lines == [
        "data set: lmms-lab-encoder/POPE, to be downloaded",
        "data set: lmms-lab-encoder/ChartQA, to be downloaded",
        "model: someone/a-model, to be downloaded",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--benchmarks"], InvalidValueError, "of all artefacts.*L-T1, L-T2.*T-T7, T-T8"),
        (["L-T6", "--benchmarks"], InvalidValueError, "L-T6 asks no questions.*says why"),
        (["T-T2", "T-T9", "--benchmarks"], InvalidValueError, "T-T9 is not made.*says why"),
        (["T-T99", "--benchmarks"], UnknownNameError, "T-T99"),
        (["T-T2", "--full"], InvalidValueError, "with --benchmarks only"),
        (["T-T2", "--benchmarks-from", "x"], InvalidValueError, "with --benchmarks only"),
        (["T-T2", "--benchmarks", "--task", "embedded/read"], InvalidValueError, "--task"),
        (["T-T2", "--benchmarks", "--benchmarks-from", "x"], InputError, "chartqa_lite.yaml"),
    ],
)
def test_wrong_input_is_told_before_anything_runs(
    arguments: list[str], error: type[LightKVError], words: str, tmp_path: Path
) -> None:
    places = ["--results", str(tmp_path / "r"), "--out", str(tmp_path / "o")]
    with pytest.raises(error, match=words):
        CliRunner().invoke(
            reproduce_command, [*arguments, *places], catch_exceptions=False, standalone_mode=False
        )
    assert not list(tmp_path.iterdir())
