"""Scores of benchmarks from rows, without the harness that made the outcomes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from analysis.scoring.benchmarks import (
    benchmark_differences,
    benchmark_scores,
    parts_of,
    unscored,
)
from analysis.scoring.captions import Caption
from analysis.scoring.formulas import FORMULAS
from analysis.scoring.summaries import compare, summarise
from lightkv.errors import InputError
from tests.closeness import DOUBLE, assert_close


def results(*named: tuple[list[str], Any]) -> dict[str, Any]:
    return {"results": [list(one) for one in named]}


def pope(said: str, right: str = "yes") -> dict[str, Any]:
    outcome = {"ground_truth": right, "prediction": said, "score": float(said == right)}
    return results((["pope_accuracy", "pope_f1_score"], outcome), (["other"], {"text": said}))


def rows(outcomes: list[dict[str, Any]], method: str = "vanilla", task: str = "pope") -> Any:
    count = len(outcomes)
    frame = pd.DataFrame({"item": range(count), "outcome": outcomes})
    return frame.assign(
        picture=[str(number // 2) for number in range(count)],
        **{"method": method, "task": f"lmms/{task}", "metric": f"lmms/{task}"},
        **{"protocol": "question-first", "seed": 0, "score": 1.0, "kv_bytes": 4, "seconds": 1.0},
        **{"kv_share": 1.0, "token_share": 1.0, "requested_retention": 1.0},
    )


ONE = rows([pope("yes"), pope("no"), pope("yes", "no"), pope("no", "no")])
OTHER = rows([pope("yes"), pope("yes"), pope("no", "no"), pope("no", "no")], "tgvkv")


def test_several_scores_come_from_one_outcome() -> None:
    scores = benchmark_scores(ONE)
    assert list(scores) == ["pope_accuracy", "pope_f1_score"]
    assert_close([one.value for one in scores.values()], [0.5, 0.5], DOUBLE)
    assert {one.n for one in scores.values()} == {4}
    assert parts_of(ONE)["pope_f1_score"].pictures == ("0", "0", "1", "1")
    assert unscored(ONE) == ["other"]


def test_scores_that_only_some_questions_have_are_means_of_those() -> None:
    halves = rows(
        [results((["all", "human" if n % 2 else "machine"], float(n > 1))) for n in range(6)]
    )
    scores = benchmark_scores(halves)
    assert {name: one.n for name, one in scores.items()} == {"all": 6, "human": 3, "machine": 3}
    assert_close(scores["human"].value, 2 / 3, DOUBLE)
    assert parts_of(halves)["human"].items == (1, 3, 5)
    assert unscored(halves) == []


def test_differences_are_paired_whatever_the_order_of_rows() -> None:
    shuffled = OTHER.iloc[[2, 0, 3, 1]]
    score, baseline, lead = benchmark_differences(shuffled, ONE)["pope_accuracy"]
    assert_close((score, baseline, lead.value), (1.0, 0.5, 0.5), DOUBLE)
    with pytest.raises(InputError, match="asked different questions"):
        benchmark_differences(OTHER.iloc[:3], ONE)
    renamed = OTHER.assign(outcome=[results((["x"], 1.0))] * 4)
    with pytest.raises(InputError, match="asked different questions"):
        benchmark_differences(renamed, ONE)


def test_tables_have_a_row_per_score() -> None:
    both = pd.concat([ONE, OTHER])
    summary = summarise(both).set_index(["method", "metric"])["score"]
    assert_close(summary["tgvkv", "pope_f1_score"], 1.0, DOUBLE)
    assert_close(summary["vanilla", "pope_accuracy"], 0.5, DOUBLE)
    leads = compare(both, "tgvkv", "vanilla").set_index("metric")
    assert list(leads.index) == ["pope_accuracy", "pope_f1_score"]
    assert_close(leads["difference"], [0.5, 0.5], DOUBLE)
    assert set(leads["n"]) == {4} and set(leads["baseline"]) == {"vanilla"}


def test_captions_are_split_once_for_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def tokenised(outcomes: Any) -> list[Caption]:
        if not all(isinstance(one, Caption) for one in outcomes):
            calls.append(len(outcomes))
        return [
            one if isinstance(one, Caption) else Caption(one["pred"], tuple(one["answer"]))
            for one in outcomes
        ]

    monkeypatch.setattr("analysis.scoring.captions.tokenised", tokenised)
    outcome = {"pred": "a red ball", "answer": ["a red ball lies here", "a ball"]}
    names = ["coco_Bleu_1", "coco_Bleu_4", "coco_ROUGE_L", "coco_CIDEr", "coco_METEOR"]
    frame = rows([results((names, outcome))] * 3)
    assert list(benchmark_scores(frame)) == names[:-1]
    assert calls == [3]
    assert unscored(frame) == ["coco_METEOR"]
    assert calls == [3], "names are told without splitting words"


def test_every_answer_has_its_picture() -> None:
    outcomes = [{"question_id": "1", "score": 1.0, "prediction": "yes", "ground_truth": "yes"}] * 2
    with pytest.raises(ValueError, match="zip"):
        FORMULAS["pope_accuracy"].value(outcomes, ["one"])
