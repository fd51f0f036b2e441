"""Claims about 5 % are also judged where as many entries are held as at the papers' 5 %."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from analysis import tasks
from figures.artefacts import artefact
from figures.artefacts.shared import TIGHT, tight, where_testable
from figures.verdicts import Outcome, Verdict, untestable, verdict
from lightkv import VLM
from tests.figures.score_frames import ablation, pilot, scored

HOLDS, FAILS, UNTESTABLE = Outcome.HOLDS, Outcome.FAILS, Outcome.UNTESTABLE
FULL = (True, True, True)
TWR = (False, True, False)


def joined(frame: pd.DataFrame, at_five: float | None, at_more: Mapping[Any, float]) -> Any:
    """The frame with 11.7 % beside 5 %: there all score 0.6 but what is named; at 5 % all score
    ``at_five``, None for as they do."""
    five = frame[frame["retention"] == 0.05]
    more = []
    names = ["tvb", "twr", "tpr"] if "tvb" in frame else ["block", "variant"]
    for (task, *rest), rows in five.groupby(["task", *names], sort=False):
        score = at_more.get(tuple(rest), 0.6)
        named = dict(zip(names, rest, strict=True)) | {"retention": 0.117}
        more.append(scored(str(rows["method"].iloc[0]), score, task=str(task), **named))
    if at_five is not None:
        frame = frame.assign(score=frame["score"].where(frame["retention"] != 0.05, at_five))
    return pd.concat([frame, *more], ignore_index=True)


CASES = [
    ("T-T5", 1, ablation(), {FULL: 0.9}, FULL),
    ("T-T5", 0, ablation({TWR: 0.9}), {TWR: 0.9}, TWR),
    ("T-T1", 0, pilot(), {("a", "TV"): 0.9}, ("a", "TV")),
    ("T-T1", 1, pilot(), {("b", "TV+TT"): 0.9}, ("b", "TV+TT")),
]


@pytest.mark.parametrize(("one", "claim", "frame", "leads", "leading"), CASES)
def test_a_floor_does_not_count_beside_a_budget_that_tells(
    one: str, claim: int, frame: pd.DataFrame, leads: Any, leading: Any
) -> None:
    def judged(frame: pd.DataFrame) -> Outcome:
        return artefact(one).claims[claim].judge(frame).outcome

    floor = joined(frame, 0.0, leads)
    assert judged(floor) is HOLDS
    assert judged(floor[floor["retention"] != 0.117]) is UNTESTABLE
    assert judged(joined(frame, 0.0, {leading: 0.2})) is FAILS
    # Where both tell, both count.
    if frame.equals(ablation()) or one == "T-T1":
        assert judged(joined(frame, None, leads)) is FAILS


def test_the_window_collapses_at_both() -> None:
    window = ("b", "observation-window")
    judge = artefact("T-T1").claims[3].judge
    assert judge(joined(pilot({window: 0.1}), None, {window: 0.1})).outcome is HOLDS
    assert judge(joined(pilot({window: 0.1}), None, {window: 0.85})).outcome is FAILS


def test_the_best_is_best_at_all_of_them() -> None:
    judge = artefact("T-T5").claims[3].judge
    assert judge(joined(ablation({FULL: 0.9}), None, {FULL: 0.9})).outcome is HOLDS
    assert judge(joined(ablation({FULL: 0.9}), None, {TWR: 0.95})).outcome is FAILS


@pytest.mark.parametrize(("one", "frame"), [("T-T5", ablation()), ("T-T1", pilot())])
def test_both_are_drawn_and_in_the_table(one: str, frame: pd.DataFrame) -> None:
    target, more = artefact(one), joined(frame, None, {})
    text = target.table(more).to_csv()
    assert "11.7" in text and "11.7" not in target.table(frame).to_csv()
    figure = target.figure(more)
    words = {w.get_text() for axes in figure.axes for w in axes.get_xticklabels()}
    words |= {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert any("11.7" in word for word in words)


def test_tight_budgets_are_those_asked() -> None:
    assert tight(ablation()) == [0.05]
    assert tight(joined(ablation(), None, {})) == [0.117, 0.05]
    assert tight(ablation()[lambda rows: rows["retention"] == 0.2]) == [0.05]


def test_parts_that_can_be_tested() -> None:
    good, gap = verdict(True, "good"), untestable("gap")
    assert where_testable([gap, good]) == [good]
    parts: list[Verdict] = [gap, untestable("other")]
    assert where_testable(parts) == parts


@pytest.mark.parametrize("kind", ["read", "list", "caption"])
def test_prompts_hold_as_many_entries_as_explanations_say(kind: str, embedded: VLM) -> None:
    (item,) = tasks.task(f"embedded/{kind}").items(1, 1)
    length = int(embedded.encode([item.request()])["attention_mask"].sum())
    alike, five = (round(share * length) for share in TIGHT)
    assert (alike, five, round(0.03 * length)) == (32, 14, 8)
    for artefact_id in ("T-T1", "T-T2"):
        assert f"about {five} entries a layer" in artefact(artefact_id).explanation
    assert "about 8 entries a layer" in artefact("T-F5").explanation
