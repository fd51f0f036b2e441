"""The papers' tables on benchmarks whose scores no question has: cells, averages and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import pytest

from analysis.scoring.formulas import formula
from figures.artefacts import artefact, artefacts
from figures.artefacts.score_tables import AVERAGE
from figures.contract import by_printed_score
from figures.verdicts import Outcome
from tests.closeness import assert_close
from tests.figures.benchmark_frames import FRAMES, OUTCOMES, evicted, prefill, pruned, score

HOLDS, FAILS, OPEN = Outcome.HOLDS, Outcome.FAILS, Outcome.UNTESTABLE


def cells(artefact_id: str, frame: pd.DataFrame, method: str) -> pd.Series:  # type: ignore[type-arg]
    """The first row of ours of a method."""
    table = artefact(artefact_id).table(frame)
    ours = table[table[("model", "")].str.startswith("here")]
    return ours[ours[("method", "")] == method].iloc[0]  # type: ignore[no-any-return]


def number(cell: object) -> float:
    return float(str(cell).split(" ")[0])


# ------------------------------------------------------------------ cells


@pytest.mark.parametrize(
    ("title", "task", "name"),
    [
        ("COCO", "coco2017_cap_val_lite", "coco_CIDEr"),
        ("NoCaps", "nocaps_val_lite", "nocaps_CIDEr"),
        ("MME-C", "mme", "mme_cognition_score"),
        ("MME-P", "mme", "mme_perception_score"),
        ("POPE-Acc", "pope", "pope_accuracy"),
        ("POPE-F1", "pope", "pope_f1_score"),
        ("SEED", "seedbench_lite", "seed_image"),
        ("VizWiz", "vizwiz_vqa_val_lite", "exact_match"),
    ],
)
def test_columns_have_the_score_that_the_paper_prints(title: str, task: str, name: str) -> None:
    frame = prefill("L-T1")
    shown = cells("L-T1", frame, "LightKV")[title, f"here: lmms/{task}"]
    expected = score(frame, f"lmms/{task}", name, compared="lightkv")
    assert_close(number(shown), expected, 0.005, scale=max(1.0, expected))
    low, high = (float(one) for one in shown.partition(" [")[2].strip("]").split(", "))
    assert low < expected < high


def test_print_stands_below_in_the_same_column() -> None:
    table = artefact("L-T2").table(prefill("L-T2"))
    theirs = table[
        (table[("model", "")] == "paper (InternVL2-8B)") & (table[("method", "")] == "full cache")
    ].iloc[0]
    printed = {
        ("COCO", "here: lmms/coco2017_cap_val_lite"): "0.90",
        ("GQA", "here: lmms/gqa_lite"): "0.63",
        ("MME-C", "here: lmms/mme"): "587.5",
        ("MME-P", "here: lmms/mme"): "1623.8",
        ("POPE-Acc", "here: lmms/pope"): "0.88",
        ("POPE-F1", "here: lmms/pope"): "0.87",
        ("ScienceQA", "here: lmms/scienceqa_img"): "0.97",
    }
    assert {column: theirs[column] for column in printed} == printed


def test_averages_are_means_of_shares_of_the_full_cache_over_columns() -> None:
    frame = prefill("L-T2", lightkv=0.5)
    names = {
        "lmms/coco2017_cap_val_lite": ["coco_CIDEr"],
        "lmms/gqa_lite": ["exact_match"],
        "lmms/mme": ["mme_cognition_score", "mme_perception_score"],
        "lmms/pope": ["pope_accuracy", "pope_f1_score"],
        "lmms/scienceqa_img": ["exact_match"],
        "lmms/vizwiz_vqa_val_lite": ["exact_match"],
    }
    shares = [
        score(frame, task, name, compared="lightkv") / score(frame, task, name, compared="vanilla")
        for task, several in names.items()
        for name in several
    ]
    expected = sum(shares) / len(shares)
    assert len(shares) == 8 and max(shares) - min(shares) > 0.05
    row = cells("L-T2", frame, "LightKV")
    assert_close(number(row[AVERAGE]), 100 * expected, 0.0006)
    assert cells("L-T2", frame, "full cache")[AVERAGE] == "100"
    plotted = artefact("L-T2").plotted(frame).set_index(["whose", "compared"])
    assert_close(plotted.loc[("here", "lightkv"), "average"], expected, 1e-9)
    assert row["KV held", "%"] == "50" and row["token-layers", "%"] == "60"


def test_points_of_mme_are_those_of_both_parts_and_not_in_percent() -> None:
    frame = pruned()
    row = cells("T-T6", frame, "TGV-KV")
    both = score(frame, "lmms/mme", "mme_perception_score", compared="tgvkv")
    both += score(frame, "lmms/mme", "mme_cognition_score", compared="tgvkv")
    assert_close(number(row["MME", "here: lmms/mme"]), both, 0.005, scale=1.0)
    f1 = score(frame, "lmms/pope", "pope_f1_score", compared="tgvkv")
    assert_close(number(row["POPE", "here: lmms/pope"]), 100 * f1, 0.06, scale=1.0)
    panels = {
        axes.get_title(): axes.lines[0].get_ydata() for axes in artefact("T-T6").figure(frame).axes
    }
    assert_close(float(panels["here: MME"][0]), both, 1e-9)
    assert_close(float(panels["here: POPE"][0]), 100 * f1, 1e-9)
    labels = {axes.get_title(): axes.get_ylabel() for axes in artefact("T-T6").figure(frame).axes}
    assert labels["here: MME"] == labels["paper: MME"] == "points"
    assert labels["here: POPE"] == labels["paper: GQA"] == "score, %"


def test_every_caption_metric_of_both_benchmarks() -> None:
    frame = evicted("T-T7")
    table = artefact("T-T7").table(frame)
    ours = table[table["model"].str.startswith("here") & (table["method"] == "TGV-KV")]
    assert list(ours["captions"]) == ["TextCaps", "TextCaps", "COCO", "COCO"]
    rows = frame[(frame["retention"] == 0.5) | (frame["retention"] == 1.0)]
    for where, task, prefix in (
        (0, "lmms/textcaps_val_lite", "textcaps"),
        (2, "lmms/coco2017_cap_val_lite", "coco"),
    ):
        for label, name in (("BLEU-4", "Bleu_4"), ("ROUGE-L", "ROUGE_L"), ("CIDEr", "CIDEr")):
            expected = score(rows, task, f"{prefix}_{name}", compared="tgvkv")
            assert_close(number(ours.iloc[where][label]), expected, 0.0006, scale=1.0)
            assert "[" in ours.iloc[where][label], "benchmarks have intervals"
        assert ours.iloc[where]["METEOR"] == "–"


def test_captions_of_two_metrics_have_a_panel_each() -> None:
    frame = evicted("T-T3")
    plotted = artefact("T-T3").plotted(frame)
    assert set(plotted["metric"]) == {"coco_ROUGE_L", "textcaps_CIDEr"}
    titles = [axes.get_title() for axes in artefact("T-T3").figure(frame).axes]
    assert titles[:2] == ["here: COCO, ROUGE-L", "here: TextCaps, CIDEr"]


@pytest.mark.parametrize("artefact_id", FRAMES)
def test_every_table_can_be_drawn_of_benchmarks(artefact_id: str) -> None:
    frame, target = FRAMES[artefact_id](), artefact(artefact_id)
    assert not target.plotted(frame).empty
    assert target.figure(frame).axes
    assert not target.table(frame).isna().any(axis=None)


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("artefact_id", "claim", "outcome", "scores"),
    [
        ("L-T1", 0, FAILS, {}),
        ("L-T1", 0, HOLDS, {"lightkv": 0.975}),
        ("L-T1", 1, HOLDS, {}),
        ("L-T1", 1, FAILS, {"lightkv": 0.5, "others": 0.7}),
        ("L-T1", 2, HOLDS, {}),
        ("L-T1", 3, HOLDS, {"others": 0.2}),
        ("L-T1", 3, FAILS, {"others": 0.8}),
        ("L-T2", 1, HOLDS, {}),
        ("L-T5", 0, HOLDS, {}),
        ("L-T5", 0, FAILS, {"shallow": (0.7, 0.5, 0.5)}),
        ("L-T5", 1, HOLDS, {}),
        ("L-T5", 1, FAILS, {"shallow": (0.5, 0.5, 0.7)}),
        ("L-T5", 2, HOLDS, {}),
        ("L-T5", 2, FAILS, {"deep": (0.9, 0.9, 0.7)}),
        ("L-T7", 0, HOLDS, {}),
        ("L-T7", 0, FAILS, {"lightkv": 0.5, "others": 0.7}),
        ("L-T7", 0, OPEN, {"lightkv": 0.9, "others": 0.9}),
        ("L-T8", 0, FAILS, {}),
        ("L-T9", 0, HOLDS, {}),
        ("L-T9", 0, FAILS, {"wide": 0.7}),
        ("L-T9", 1, HOLDS, {"narrow": 0.975}),
        ("L-T9", 1, FAILS, {"narrow": 0.7}),
        ("T-T1", 0, HOLDS, {"a_TV": 0.85}),
        ("T-T1", 0, FAILS, {"a_VV": 0.85}),
        ("T-T1", 0, OPEN, {"others": 0.9}),
        ("T-T1", 1, HOLDS, {"b_TV_TT": 0.85}),
        ("T-T1", 1, FAILS, {"b_observation_window": 0.85}),
        ("T-T1", 2, HOLDS, {"b_TV_TT": 0.85}),
        ("T-T1", 2, FAILS, {"b_VV_TT": 0.85}),
        ("T-T1", 3, HOLDS, {"b_observation_window": 0.2}),
        ("T-T1", 3, FAILS, {"b_observation_window": 0.8}),
        ("T-T1", 4, HOLDS, {"c_text": 0.2}),
        ("T-T1", 4, FAILS, {"c_text": 0.8}),
        ("T-T1", 5, HOLDS, {"c_vision": 0.8}),
        ("T-T1", 5, FAILS, {"c_vision": 0.2}),
        ("T-T2", 1, HOLDS, {}),
        ("T-T3", 0, HOLDS, {}),
        ("T-T3", 0, FAILS, {"tgvkv": 0.5, "others": 0.7}),
        ("T-T3", 1, HOLDS, {"tgvkv": 0.9}),
        ("T-T3", 1, FAILS, {"tgvkv": 0.6}),
        ("T-T5", 0, HOLDS, {"twr": 0.85}),
        ("T-T5", 0, FAILS, {"tvb": 0.85}),
        ("T-T5", 1, HOLDS, {"tvb_twr_tpr": 0.85}),
        ("T-T5", 1, FAILS, {"tvb_twr": 0.85}),
        ("T-T5", 2, HOLDS, {"tvb_twr_tpr": 0.85}),
        ("T-T5", 2, FAILS, {"twr_tpr": 0.85}),
        ("T-T5", 3, HOLDS, {"tvb_twr_tpr": 0.85}),
        ("T-T5", 3, FAILS, {"twr": 0.85}),
        ("T-T6", 0, HOLDS, {}),
        ("T-T6", 0, FAILS, {"tgvkv": 0.5, "others": 0.7}),
        ("T-T7", 0, HOLDS, {}),
        ("T-T7", 0, FAILS, {"tgvkv": 0.5, "others": 0.7}),
    ],
)
def test_claims_are_judged_on_scores_of_the_set(
    artefact_id: str, claim: int, outcome: Outcome, scores: dict[str, float]
) -> None:
    verdict = artefact(artefact_id).judge(FRAMES[artefact_id](**scores))[claim].verdict
    assert verdict.outcome is outcome, verdict.reason


def test_one_metric_that_says_otherwise_decides() -> None:
    """Every metric of both benchmarks counts: COCO alone is worse here."""
    good, bad = evicted("T-T7"), evicted("T-T7", tgvkv=0.5, others=0.7)
    coco = "lmms/coco2017_cap_val_lite"
    mixed = pd.concat([good[good["task"] != coco], bad[bad["task"] == coco]])
    verdict = artefact("T-T7").judge(mixed)[0].verdict
    assert verdict.outcome is FAILS and "coco_" in verdict.reason
    assert "textcaps" not in verdict.reason


# ------------------------------------------------------------------ what can be asked


def test_benchmarks_are_printed_and_can_be_scored() -> None:
    able = [one.id for one in artefacts() if one.benchmarks]
    assert able == [
        *("L-F4", "L-T1", "L-T2", "L-T3", "L-T5", "L-T7", "L-T8", "L-T9"),
        *("T-T1", "T-T2", "T-T3", "T-T5", "T-T6", "T-T7", "T-T8"),
    ]
    for one in artefacts():
        for benchmark in one.benchmarks:
            outcome = OUTCOMES[f"lmms/{benchmark.lite}"]
            names = {name for number in range(4) for name in outcome(number, True)}
            assert benchmark.score in {*names, "mme_score"}
            assert formula(benchmark.score, [{}]) or benchmark.score in (
                *("exact_match", "relaxed_overall", "anls"),
            ), benchmark.score


def test_rows_of_other_tasks_stay_as_they_are() -> None:
    frame = prefill("L-T2")
    others: Sequence[str] = ["lmms/pope"]
    some = frame[frame["task"].isin(others)]
    assert by_printed_score(some, ()) is some
    assert by_printed_score(some, artefact("T-T2").benchmarks) is some
    twice = by_printed_score(some, artefact("L-T2").benchmarks)
    assert len(twice) == 2 * len(some)
    assert set(twice["metric"]) == {"lmms/pope_accuracy", "lmms/pope_f1_score"}
    assert all(math.isnan(one) for one in twice["score"])
