"""T-T4: speed that was recorded, beside the paper's."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.studies.speed import PAPER_MODEL, RECORDED
from figures.artefacts import artefact
from figures.artefacts.latency_numbers import shares
from figures.artefacts.rounds import ratios
from tests.figures.cost_frames import beside_record, decode_latency

HEADING = "ms a step, % of the full cache's (LLaVA-1.5-7B)"


def cells(frame: pd.DataFrame, cache: str) -> pd.Series[str]:
    table = artefact("T-T4").table(frame)
    row: pd.Series[str] = table[table["cache", ""] == cache][HEADING].iloc[0]
    return row


def test_shares_are_of_the_same_round_of_the_same_piece() -> None:
    first = decode_latency(640, "cuda", recorded=True)
    slow = ["step_ms", "throughput"]
    second = first.assign(piece="two", **{name: 10 * first[name] for name in slow})
    alone = second[second["retention"] == 1].assign(piece="three", step_ms=1000.0)
    both = pd.concat([first, second, alone])
    assert ratios(both, "step_ms", "retention", 0.05, 1.0).tolist() == pytest.approx([0.5] * 10)
    assert ratios(both, "step_ms", "retention", 0.2, 1.0).empty


def test_recorded_shares_stand_beside_printed_ones_and_what_is_not_recorded_is_named() -> None:
    shown = cells(beside_record(), "TGV-KV 5 %")
    assert shown.to_dict() == {
        "640 tokens, GPU": "50.0 [50.0, 50.0]",
        "8,000 tokens, GPU": "not recorded",
        "8,000 tokens, paper": "69.6",
        "16,000 tokens, GPU": "not recorded",
        "16,000 tokens, paper": "48.7",
    }
    assert cells(beside_record(), "full")["640 tokens, GPU"] == "100.0"
    assert cells(beside_record(), "full")["8,000 tokens, GPU"] == "not recorded"


@pytest.mark.parametrize(
    ("context", "stands_for"), [(16064, 16000), (16160, 16000), (16161, 16161)]
)
def test_a_recorded_length_within_a_percent_stands_for_the_printed_one(
    context: int, stands_for: int
) -> None:
    data = shares(beside_record(context))
    assert set(data[data["whose"] == "GPU"]["context"]) == {stands_for}


def test_the_reason_says_what_there_is_where_the_papers_length_is_not() -> None:
    _, latency, _ = artefact("T-T4").judge(beside_record(2208, step=3.0))
    assert latency.verdict.reason.startswith("needs 16,000 tokens at 5 % on a GPU")
    told = "recorded (LLaVA-1.5-7B, GPU), 2,208 tokens at 5 %: 0.750 of the full cache's"
    assert told in latency.verdict.reason and "here (embedded" in latency.verdict.reason


def test_only_what_is_measured_here_stands_under_here() -> None:
    speed = artefact("T-T4").plotted(beside_record(step=99.0)).query("panel == 'speed here'")
    assert speed["step_ms_mean"].max() < 5
    headings = {name for name, _ in artefact("T-T4").table(beside_record()).columns}
    assert [name for name in headings if "here" in name] == ["here (embedded model), cpu"]
    memory = artefact("T-T4").judge(beside_record(held=0.9))[0]
    assert "95.0 % of the cache is freed here" in memory.verdict.reason


def test_a_share_is_the_median_over_rounds_and_the_full_cache_has_none() -> None:
    shown = cells(beside_record(last=2.0), "TGV-KV 5 %")
    assert shown["640 tokens, GPU"] == "50.0 [50.0, 100.0]"
    alone = decode_latency(640, "cuda", recorded=True).query("retention == 1")
    _, latency, _ = artefact("T-T4").judge(pd.concat([decode_latency(), alone]))
    assert "LLaVA" not in latency.verdict.reason


def test_the_explanation_says_what_the_record_that_ships_has() -> None:
    record = pd.read_csv(RECORDED)  # type: ignore[call-overload]  # a path, where it is installed
    rows = record[(record["shape"] == PAPER_MODEL) & (record["method"] == "tgvkv")]
    rows = rows[rows["repeat"].notna() & (rows["batch_size"] == 1) & (rows["driver"] == "auto")]
    assert set(rows["tokens"] + rows["text"]) == {640, 2208} and set(rows["retention"]) == {0.2}
    assert set(rows["new_tokens"]) == {10} and set(rows["machine"]) == {"NVIDIA H200"}
    words = artefact("T-T4").explanation
    assert "has 640 and 2,208 tokens at 20 %" in words and "answers have ten tokens" in words
