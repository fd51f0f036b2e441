"""Scores beside the full cache and a control, on tables small enough to reckon by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.scoring.beside import at_equal, beside, hard_group, is_control, loyal
from analysis.scoring.intervals import difference, mean
from lightkv.errors import UnknownNameError
from tests.closeness import assert_close


def rows(
    method: str,
    scores: Sequence[float],
    kv_share: float = 1.0,
    seconds: float = 1.0,
    answers: Sequence[str] | None = None,
    **more: Any,
) -> pd.DataFrame:
    said = answers or ["yes" if score else "no" for score in scores]
    return pd.DataFrame(
        {
            "protocol": "question-first",
            "task": "toy",
            "method": method,
            "seed": 0,
            "item": range(len(scores)),
            "answer": said,
            "score": np.asarray(scores, float),
            "kv_share": kv_share,
            "token_share": (1 + kv_share) / 2,
            "seconds": seconds,
            **more,
        }
    )


FULL = rows("vanilla", [1, 1, 1, 1, 0, 1], seconds=2.0)
HALF = rows("downsample 50 %", [1, 1, 1, 0, 0, 0], 0.5, 1.0)
FIFTH = rows("downsample 20 %", [1, 0, 0, 0, 0, 0], 0.2, 0.6)
MINE = rows("mine", [1, 0, 1, 1, 1, 0], 0.35, 1.5)
ALL = pd.concat([FULL, HALF, FIFTH, MINE])


def one(frame: pd.DataFrame, method: str = "mine", **options: Any) -> Any:
    compared = beside(frame, **options)
    return compared[compared["method"] == method].iloc[0]


def test_loyalty_is_agreement_with_the_full_cache_right_or_wrong() -> None:
    full = rows("vanilla", [1, 0, 1], answers=["A dog.", "two", "red"])
    mine = rows("mine", [0, 0, 1, 1], answers=["a  Dog", "three", "blue", "new"])
    assert loyal(mine, full)["loyalty"].tolist()[:3] == [1, 0, 0]
    assert math.isnan(loyal(mine, full)["loyalty"].iloc[3])
    row = one(pd.concat([full, mine]), control=None)
    assert row["loyalty"] == 1 / 3
    assert row["loyalty_low"] == mean(loyal(mine, full), "loyalty").low
    assert math.isnan(row["lead_entries"]) and math.isnan(row["hard_n"])


def test_a_control_is_interpolated_to_what_the_method_takes() -> None:
    # 0.35 of the entries lies in the middle of 0.2 and 0.5, 1.5 seconds in that of 1 and 2.
    at = at_equal(MINE, [HALF, FIFTH, FULL], "kv_share")
    assert at is not None
    assert_close(at["score"].to_numpy(), [1, 0.5, 0.5, 0, 0, 0])
    row = one(ALL)
    assert_close(row["lead_entries"], 4 / 6 - 2 / 6)
    assert_close(row["lead_tokens"], 4 / 6 - 2 / 6)
    assert_close(row["lead_time"], 4 / 6 - (1 + 1 + 1 + 0.5 + 0 + 0.5) / 6)
    exact = difference(MINE, at)
    assert (row["lead_entries_low"], row["lead_entries_high"]) == (exact.low, exact.high)


def test_beyond_the_dearest_setting_the_full_cache_is_compared_with() -> None:
    slow = rows("slow", [1, 1, 1, 1, 1, 1], 0.1, 9.0)
    row = one(pd.concat([ALL, slow]), "slow")
    assert_close(row["lead_time"], 1 - 5 / 6)
    assert math.isnan(row["lead_entries"]), "the control holds 0.2 at its smallest"
    assert at_equal(slow, [], "seconds") is None


def test_a_setting_that_takes_as_much_is_taken_as_it_is() -> None:
    for setting in (FIFTH, HALF, FULL):
        of_method = rows("own", [0, 1, 0, 1, 0, 1], float(setting["kv_share"].iloc[0]))
        at = at_equal(of_method, [FULL, FIFTH, HALF], "kv_share")
        assert at is not None and at["score"].tolist() == setting["score"].tolist()


def test_the_hard_group_is_what_the_nearest_control_gets_wrong() -> None:
    near = rows("near", [0, 1, 1, 0, 1, 1], 0.21)
    row = one(pd.concat([ALL, near]), "near")
    assert (row["nearest"], row["hard_n"]) == ("downsample 20 %", 5)
    assert row["hard"] == 4 / 5 and row["hard_full"] == 4 / 5
    assert row["hard_low"] == mean(near.iloc[1:]).low
    graded = FIFTH.assign(score=[0.5, 0.49, 0.51, 0, 1, 1])
    assert hard_group(near, graded)["item"].tolist() == [1, 3]


def test_a_control_that_gets_nothing_wrong_leaves_no_hard_group() -> None:
    perfect = rows("downsample 50 %", [1] * 6, 0.5)
    row = one(pd.concat([FULL, perfect, MINE]))
    assert row["hard_n"] == 0 and math.isnan(row["hard"]) and math.isnan(row["hard_full"])


def test_the_control_itself_is_loyal_and_leads_nobody() -> None:
    row = one(ALL, "downsample 50 %")
    assert row["loyalty"] == 4 / 6 and math.isnan(row["lead_entries"])
    assert set(beside(ALL)["method"]) == {"downsample 50 %", "downsample 20 %", "mine"}


def test_labels_of_a_control() -> None:
    assert is_control("downsample", "downsample")
    assert is_control("downsample:of=prompt 20 %", "downsample")
    assert not is_control("downsampled", "downsample")
    with pytest.raises(UnknownNameError, match="uniform-grid"):
        beside(ALL, "uniform-grid")


def test_groups_are_compared_by_themselves_and_pictures_count() -> None:
    other = pd.concat([FULL, FIFTH, MINE]).assign(task="other", score=0.0)
    compared = beside(pd.concat([ALL, other])).set_index(["task", "method"])
    assert compared.loc[("other", "mine"), "lead_entries"] == 0
    assert compared.loc[("other", "mine"), "hard_n"] == 6
    clustered = ALL.assign(picture=[0, 0, 1, 1, 2, 2] * 4)
    wide = one(clustered)["loyalty_high"] - one(clustered)["loyalty_low"]
    assert wide > one(ALL)["loyalty_high"] - one(ALL)["loyalty_low"]


def test_scores_of_whole_sets_have_loyalty_alone() -> None:
    row = one(ALL.assign(score=float("nan")))
    assert row["loyalty"] == 3 / 6 and math.isnan(row["lead_entries"])


def test_without_answers_there_is_no_loyalty() -> None:
    assert math.isnan(one(ALL.drop(columns="answer"))["loyalty"])
