"""Tables of variants of one method on benchmarks: T-T1, T-T5, L-T5 and L-T9."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from figures.artefacts import artefact
from figures.artefacts.score_tables import AVERAGE
from figures.benchmarks import grouped, targets
from figures.verdicts import Outcome
from lightkv.errors import InvalidValueError
from tests.closeness import assert_close
from tests.figures import score_frames
from tests.figures.benchmark_frames import (
    FULL_CACHE,
    ablation,
    pilot,
    schedules,
    score,
    window_counts,
)

HERE = "here (embedded model)"
LITE = {
    "chartqa_lite": "relaxed_overall",
    "coco2017_cap_val_lite": "coco_ROUGE_L",
    "textvqa_val_lite": "exact_match",
}


def row_of(table: pd.DataFrame, **wanted: str) -> pd.Series:  # type: ignore[type-arg]
    """The row with these texts under headings of one level."""
    for name, text in wanted.items():
        heading = (name, "") if (name, "") in table else (name.replace("_", " "), "")
        table = table[table[heading] == text]
    return table.iloc[0]


def assert_shown(cell: Any, expected: float, digits: int) -> None:
    """The cell is that number, inside the cell's interval."""
    value, _, interval = str(cell).partition(" ")
    assert value == f"{expected:.{digits}f}"
    low, high = (float(one) for one in interval.strip("[]").split(", "))
    assert low <= float(value) <= high


# ------------------------------------------------------------------ cells


def test_the_pilot_has_its_benchmarks_beside_the_print() -> None:
    frame = pilot(a_TV=0.85)
    table = artefact("T-T1").table(frame)
    tight = table[table["KV retained, %", ""] == "5"]
    row = row_of(tight, block="(a) budget of a layer", variant="TV (TGV-KV)")
    assert (row["paper (LLaVA-1.5-7B)", "ChartQA, %"], row["KV retained, %", ""]) == (14.3, "5")
    for title, name in (("ChartQA", "chartqa_lite"), ("TextVQA-lite", "textvqa_val_lite")):
        setting = {"block": "a", "variant": "TV", "retention": 0.05}
        expected = score(frame, f"lmms/{name}", LITE[name], **setting)
        assert_shown(row[HERE, f"{title}, %"], 100 * expected, 1)
    full = row_of(tight, block="full cache")
    assert full[HERE, "ChartQA, %"].startswith(f"{100 * FULL_CACHE:.1f} [")


def test_the_ablation_has_captions_by_the_score_that_is_printed() -> None:
    frame = ablation(twr=0.85)
    row = row_of(artefact("T-T5").table(frame), parts="TWR")
    for title, name in (("ChartQA", "chartqa_lite"), ("COCO, ROUGE-L", "coco2017_cap_val_lite")):
        setting = {"tvb": False, "twr": True, "tpr": False, "retention": 0.05}
        expected = score(frame, f"lmms/{name}", LITE[name], **setting)
        assert_shown(row[HERE, f"{title} at 5 %"], 100 * expected, 1)
    assert row["paper (LLaVA-1.5-7B)", "COCO, ROUGE-L at 5 %"] == 48.6


@pytest.mark.parametrize(
    ("title", "task", "name", "printed"),
    [
        ("COCO", "coco2017_cap_val_lite", "coco_CIDEr", 0.83),
        ("GQA", "gqa_lite", "exact_match", 0.59),
        ("MME-C", "mme", "mme_cognition_score", 555.0),
        ("MME-P", "mme", "mme_perception_score", 1621.1),
        ("POPE-Acc", "pope", "pope_accuracy", 0.87),
        ("POPE-F1", "pope", "pope_f1_score", 0.86),
        ("ScienceQA", "scienceqa_img", "exact_match", 0.96),
        ("VizWiz", "vizwiz_vqa_val_lite", "exact_match", 0.60),
    ],
)
def test_window_counts_have_every_score_in_the_units_of_the_print(
    title: str, task: str, name: str, printed: float
) -> None:
    frame = window_counts()
    table = artefact("L-T5").table(frame)
    row = row_of(table, depth="shallow", w="2")
    assert_shown(row[HERE, title], score(frame, f"lmms/{task}", name, layer=1.0, windows=2.0), 2)
    assert row["paper (InternVL2-8B)", title] == printed
    theirs = [title for whose, title in table.columns if whose.startswith("paper")]
    assert [title for whose, title in table.columns if whose == HERE] == theirs
    assert (row[HERE, "λ"], row["paper (InternVL2-8B)", "λ"]) == ("1", "3")


def test_what_was_not_asked_has_a_dash_beside_the_print() -> None:
    frame = window_counts()
    some = frame[(frame["layer"] != 6) | (frame["windows"] != 4)]
    row = row_of(artefact("L-T5").table(some), depth="deep", w="4")
    assert (row[HERE, "GQA"], row["paper (InternVL2-8B)", "GQA"]) == ("–", 0.62)


def test_window_schedules_stand_above_the_print_with_their_average() -> None:
    frame = schedules(narrow=0.7)
    table = artefact("L-T9").table(frame)
    row = row_of(table, model="here (embedded)", setting="W = 4,2,1")
    for title, task, name in (
        ("DocVQA", "docvqa_val_lite", "anls"),
        ("NoCaps", "nocaps_val_lite", "nocaps_CIDEr"),
        ("MME-C", "mme", "mme_cognition_score"),
        ("SEED", "seedbench_lite", "seed_image"),
    ):
        expected = score(frame, f"lmms/{task}", name, windows="4,2,1")
        assert_shown(row[title, f"here: lmms/{task}"], expected, 2)
    assert float(row[AVERAGE].split(" ")[0]) < 80
    theirs = row_of(table, model="paper (LLaVA-1.5-13B)", setting="W = 6,4,2")
    assert theirs["MME-C", "here: lmms/mme"] == "301.79"
    assert theirs["DocVQA", "here: lmms/docvqa_val_lite"] == "0.22"
    assert theirs[AVERAGE] == "99.0"
    full = row_of(table, model="paper (LLaVA-NeXT-13B)", method="full cache")
    assert (full["setting", ""], full["GQA", "here: lmms/gqa_lite"]) == ("–", "0.65")


# ------------------------------------------------------------------ drawings


def titles(artefact_id: str, frame: pd.DataFrame) -> list[str]:
    return [axes.get_title() for axes in artefact(artefact_id).figure(frame).axes]


def test_each_benchmark_has_a_panel_above_its_print() -> None:
    names = ["COCO", "GQA", "POPE-Acc", "POPE-F1", "ScienceQA", "VizWiz"]
    shown = titles("L-T5", window_counts())
    assert shown == [*(f"here: {name}" for name in names), *(f"paper: {name}" for name in names)]
    assert titles("T-T5", ablation()) == [
        *("here: ChartQA", "here: COCO, ROUGE-L", "paper: ChartQA", "paper: COCO, ROUGE-L"),
    ]
    rows = [axes[0].get_ylabel() for axes in _rows_of_three(pilot())]
    assert rows == [
        *("here: ChartQA\nscore, %", "here: TextVQA-lite\nscore, %"),
        *("paper: ChartQA\nscore, %", "paper: TextVQA-lite\nscore, %"),
    ]


def test_places_without_a_panel_are_empty() -> None:
    shown = artefact("L-T5").figure(score_frames.window_sweep()).axes
    titles = [axes.get_title() for axes in shown if axes.get_visible()]
    assert titles[:2] == ["here: read", "paper: COCO"] and len(titles) == 7 < len(shown)


def _rows_of_three(frame: pd.DataFrame) -> list[Any]:
    axes = artefact("T-T1").figure(frame).axes
    return [axes[at : at + 3] for at in range(0, len(axes), 3)]


def test_the_full_cache_is_drawn_at_its_score_of_the_set() -> None:
    """Captions are right or wrong here, and ROUGE-L of a wrong one is not 0."""
    frame = ablation()
    panel = artefact("T-T5").figure(frame).axes[1]
    full = next(line for line in panel.lines if line.get_label() == "full cache")
    expected = score(frame, "lmms/coco2017_cap_val_lite", "coco_ROUGE_L", retention=1.0)
    assert FULL_CACHE < expected < 1
    assert_close(float(full.get_xdata()[0]), 100 * expected, 1e-9)
    first = _rows_of_three(pilot())[0][0]
    full = next(line for line in first.lines if line.get_label() == "full cache")
    assert_close(float(full.get_ydata()[0]), 100 * FULL_CACHE, 1e-9)


def test_points_are_in_the_table_and_not_on_an_axis_in_percent() -> None:
    names = ["COCO", "DocVQA", "GQA", "NoCaps", "POPE-Acc", "POPE-F1", "ScienceQA", "SEED"]
    names.append("VizWiz")
    frame = schedules()
    ours, first, _ = artefact("L-T9").figure(frame).axes
    labels = [text.get_text() for text in ours.get_xticklabels()]
    assert labels == [text.get_text() for text in first.get_xticklabels()] == names
    full = dict(zip(labels, (line.get_ydata()[0] for line in ours.lines[-9:]), strict=True))
    expected = 100 * score(frame, "lmms/nocaps_val_lite", "nocaps_CIDEr", windows="")
    assert_close(float(full["NoCaps"]), expected, 1e-9)


# ------------------------------------------------------------------ verdicts and names


def test_captions_alone_can_decide_what_is_best() -> None:
    """All three parts are best on ChartQA; without TVB captions are better."""
    good, bad = ablation(tvb_twr_tpr=0.85), ablation(twr_tpr=0.85)
    captions = good["task"].str.contains("coco")
    verdict = artefact("T-T5").judge(pd.concat([good[~captions], bad[captions]]))[3].verdict
    assert verdict.outcome is not Outcome.HOLDS
    assert artefact("T-T5").judge(good)[3].verdict.outcome is Outcome.HOLDS


@pytest.mark.parametrize(
    ("artefact_id", "claim", "frame", "one", "other", "whole"),
    [
        (
            *("T-T5", 3, ablation(tvb_twr_tpr=0.7)),
            {"tvb": False, "twr": False, "tpr": False, "retention": 0.2},
            {"tvb": True, "twr": True, "tpr": True, "retention": 0.2},
            {"retention": 1.0},
        ),
        (
            *("L-T5", 2, window_counts(deep=(0.6, 0.5, 0.5))),
            {"layer": 6.0, "windows": 2.0},
            {"layer": 6.0, "windows": 1.0},
            {"method": "vanilla"},
        ),
        (
            *("L-T9", 0, schedules(narrow=0.6, wide=0.5)),
            {"windows": "6,4,2"},
            {"windows": "4,2,1"},
            {"windows": ""},
        ),
    ],
    ids=["T-T5", "L-T5", "L-T9"],
)
def test_margins_are_shares_of_the_full_cache(
    artefact_id: str, claim: int, frame: pd.DataFrame, one: Any, other: Any, whole: Any
) -> None:
    target = artefact(artefact_id)
    shares = []
    for benchmark in target.benchmarks:
        what = frame, f"lmms/{benchmark.lite}", benchmark.score
        shares.append((score(*what, **one) - score(*what, **other)) / score(*what, **whole))
    reason = target.judge(frame)[claim].verdict.reason
    shown = re.search(r": (-?\d\.\d{3}) \[", reason)
    assert shown and shown[1] == f"{sum(shares) / len(shares):.3f}", reason


def test_the_lite_part_of_textvqa_is_what_is_printed() -> None:
    (whole,) = grouped(targets(["T-T1"]), True, None)
    assert whole.tasks == ("lmms:chartqa", "lmms:textvqa_val_lite")


def test_a_table_of_computation_asks_nothing() -> None:
    with pytest.raises(InvalidValueError, match=r"with L-F4, .*; L-T6 asks no questions.*says why"):
        targets(["T-T1", "L-T6"])
    with pytest.raises(InvalidValueError, match=r"T-T9 is not made of benchmarks here.*says why"):
        targets(["T-T9"])
