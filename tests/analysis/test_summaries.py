"""Intervals and tests against closed forms, and what summaries promise."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from analysis.scoring.metrics import metric
from analysis.scoring.summaries import compare, rescore, summarise
from lightkv.errors import InputError, InvalidValueError, UnknownNameError


def frame_of(scores: dict[str, Sequence[float]], metric: str = "exact") -> pd.DataFrame:
    rows = [
        {
            "protocol": "question-first",
            "task": "toy",
            "method": method,
            "metric": metric,
            "seed": 0,
            "item": item,
            "answer": "right answer" if score else "wrong",
            "reference": ["right answer"],
            "score": float(score),
            "kv_bytes": 50,
            "kv_share": 0.5,
            "token_share": 1.0,
            "requested_retention": math.nan,
            "seconds": 0.1,
        }
        for method, of_method in scores.items()
        for item, score in enumerate(of_method)
    ]
    return pd.DataFrame(rows)


def test_summary_keeps_order_and_means() -> None:
    frame = frame_of({"vanilla": [1, 1, 1, 0], "a": [0, 0, 1, 0]})
    summary = summarise(frame)
    assert summary["method"].tolist() == ["vanilla", "a"]
    assert summary["score"].tolist() == [0.75, 0.25]
    assert summary["n"].tolist() == [4, 4]
    assert summary["kv_share"].tolist() == [0.5, 0.5]
    assert summary["interval"].tolist() == ["wilson", "wilson"]
    assert (summary["low"] < summary["score"]).all()


def test_summary_bounds_widen_with_confidence() -> None:
    frame = frame_of({"a": [0, 0, 1, 0]})
    sure, usual = summarise(frame, confidence=0.99).iloc[0], summarise(frame).iloc[0]
    assert sure["low"] < usual["low"] < usual["high"] < sure["high"]
    lead = {
        level: compare(
            pd.concat([frame, frame.assign(method="b", score=0.0)]), "a", "b", confidence=level
        ).iloc[0]
        for level in (0.95, 0.99)
    }
    assert lead[0.99]["low"] < lead[0.95]["low"]
    with pytest.raises(InvalidValueError, match="level"):
        summarise(frame, confidence=95)


def test_summary_knows_questions_about_one_picture() -> None:
    frame = frame_of({"a": [0, 0, 1, 1, 0, 0]}).assign(picture=[0, 0, 1, 1, 2, 2])
    apart = summarise(frame.drop(columns="picture")).iloc[0]
    together = summarise(frame).iloc[0]
    assert together["interval"] == "t"
    assert together["high"] - together["low"] > apart["high"] - apart["low"]


def test_summary_refuses_mixed_metrics() -> None:
    mixed = pd.concat([frame_of({"a": [1]}), frame_of({"a": [1]}, metric="anls")])
    with pytest.raises(InputError, match="group by task"):
        summarise(mixed)


def test_corpus_metrics_are_computed_over_each_group() -> None:
    frame = frame_of({"a": [1, 0, 1], "b": [1, 1, 1]})
    frame["reference"] = [["a red ball here"], ["two big dogs run"], ["green soup is hot"]] * 2
    frame["answer"] = ["a red ball here", "x", "green soup is hot", *frame["answer"][3:]]
    rescored = rescore(frame, "cider")
    assert rescored["score"].isna().all()
    summary = summarise(rescored).set_index("method")
    corpus = metric("cider").scores(frame["answer"][:3].tolist(), frame["reference"][:3].tolist())
    assert summary["score"]["a"] == pytest.approx(np.mean(corpus))
    assert summary["interval"]["a"] == "t"


def test_rescoring_uses_the_stored_answers() -> None:
    frame = frame_of({"a": [1, 0]})
    rescored = rescore(frame, "rouge_l")
    assert rescored["score"].tolist() == [1.0, 0.0]
    assert rescored["metric"].unique().tolist() == ["rouge_l"]
    with pytest.raises(InputError, match="at least 4"):
        rescore(frame, "vqa_accuracy")


def test_mcnemar_is_the_binomial_test_of_discordant_pairs() -> None:
    # 8 losses, 1 win, 11 ties: p = 2 * (C(9, 0) + C(9, 1)) / 2^9.
    baseline = [1] * 8 + [0] + [1] * 11
    method = [0] * 8 + [1] + [1] * 11
    row = compare(frame_of({"full": baseline, "small": method}), "small", "full").iloc[0]
    assert row["p_value"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert (row["wins"], row["losses"], row["test"]) == (1, 8, "mcnemar")
    assert row["difference"] == pytest.approx(-7 / 20)
    assert row["low"] < row["difference"] < row["high"] < 0


def test_permutation_of_small_samples_is_exact() -> None:
    # Five differences of one sign: 2 of the 2^5 sign patterns are as extreme.
    better, worse = [0.9, 0.8, 0.7, 0.9, 0.6], [0.1, 0.2, 0.3, 0.2, 0.4]
    frame = frame_of({"a": better, "b": worse}, metric="anls")
    row = compare(frame, "a", "b").iloc[0]
    assert row["p_value"] == pytest.approx(2 / 2**5)
    assert row["test"] == "permutation"


def test_a_method_equals_itself() -> None:
    for name in ("exact", "anls"):
        row = compare(frame_of({"a": [1, 0, 1], "b": [1, 0, 1]}, name), "a", "b").iloc[0]
        assert (row["p_value"], row["difference"]) == (1.0, 0)
        assert row["low"] < 0 < row["high"]


def test_pairs_are_matched_by_question_not_by_row() -> None:
    frame = frame_of({"a": [1, 0, 1], "b": [1, 0, 1]})
    shuffled = pd.concat([frame[:3], frame[3:][::-1]], ignore_index=True)
    assert compare(shuffled, "a", "b").iloc[0]["losses"] == 0


def test_different_questions_are_refused() -> None:
    frame = frame_of({"a": [1, 0, 1], "b": [1, 0]})
    for method, baseline in (("a", "b"), ("b", "a")):
        with pytest.raises(InputError, match="different questions"):
            compare(frame, method, baseline)


def test_unknown_label() -> None:
    with pytest.raises(UnknownNameError, match="vanilla"):
        compare(frame_of({"vanilla": [1], "a": [1]}), "a", "vanila")
