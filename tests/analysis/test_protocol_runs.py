"""Protocols, and methods that can't be used: told, left out, remembered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from analysis.asking.evaluation import evaluate
from analysis.asking.store import Store
from analysis.tasks import TaskItem, task
from lightkv import TGVKV, VLM
from lightkv.catalogue import method
from lightkv.errors import (
    InputError,
    InvalidValueError,
    ModelError,
    UnknownNameError,
    UnsupportedError,
)
from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.fastv import FastV
from tests.analysis.asked import Sums, echo, run
from tests.analysis.fake import FakeVLM, Picky


def test_protocols_are_asked_apart(embedded: VLM) -> None:
    frame = evaluate(
        embedded,
        ["embedded/color", "embedded/read"],
        {"vanilla": None, "random": method("random", 0.05)},
        protocols=("question-first", "question-agnostic", "second-turn"),
        samples=4,
        progress=False,
    )
    assert len(frame) == 3 * 2 * 2 * 4
    scores = frame.groupby(["protocol", "method"])["score"].mean()
    assert (scores.xs("vanilla", level="method") >= 0.75).all()
    # A one-word answer is there before anything is evicted, but not once the cache is cut.
    first = frame[frame["task"] == "embedded/color"].groupby(["protocol", "method"])["answer"]
    words = first.apply(lambda answers: [answer.split()[0] for answer in answers])
    assert words["question-first", "random"] == words["question-first", "vanilla"]
    for protocol in ("question-agnostic", "second-turn"):
        assert words[protocol, "random"] != words[protocol, "vanilla"]
    shares = frame[frame["method"] == "random"]["kv_share"]
    assert shares.between(0.03, 0.06).all()


def test_methods_that_cannot_be_used_are_told_and_left_out(embedded: VLM, tmp_path: Path) -> None:
    told: list[tuple[str, str, str, str]] = []
    methods = {
        "vanilla": None,
        "tgvkv": TGVKV(retention=0.2),
        "too deep": FastV(layer=30),
        "two towers": CDPruner(text_tower=str(tmp_path)),
    }
    usual: dict[str, Any] = {"samples": 2, "progress": False}
    frame = evaluate(
        embedded,
        ["embedded/color"],
        methods,
        protocols=("question-first", "question-agnostic"),
        on_refusal=lambda *cell: told.append((*cell[:3], str(cell[3]))),
        **usual,
    )
    left = set(zip(frame["protocol"], frame["method"], strict=True))
    both = {"question-first", "question-agnostic"}
    assert left == {(name, "vanilla") for name in both} | {("question-first", "tgvkv")}
    assert {cell[1] for cell in told} == {"embedded/color"}
    reasons = {(protocol, label): reason for protocol, _, label, reason in told}
    assert set(reasons) == {(p, m) for p in both for m in methods} - left
    assert "text after the image" in reasons["question-agnostic", "tgvkv"]
    assert "layer is 30" in reasons["question-first", "too deep"]
    with pytest.raises(ModelError, match="text tower"):
        evaluate(
            embedded,
            ["embedded/color"],
            {"two towers": CDPruner(text_tower=str(tmp_path))},
            **usual,
        )
    with pytest.raises(UnsupportedError, match="none of these methods"):
        evaluate(
            embedded,
            ["embedded/color"],
            {"two towers": CDPruner(text_tower=str(tmp_path))},
            on_refusal=lambda *_: None,
            **usual,
        )


@pytest.mark.parametrize("protocols", [(), ("second-turn", "second-turn"), ("second turn",)])
def test_protocols_are_checked(protocols: tuple[str, ...]) -> None:
    with pytest.raises((InvalidValueError, UnknownNameError), match="protocol"):
        run(FakeVLM(echo), protocols=protocols)


def test_a_second_turn_needs_an_earlier_question() -> None:
    with pytest.raises(InputError, match="no earlier question"):
        run(FakeVLM(echo), protocols=("second-turn",))


def test_a_refusal_in_mid_task_leaves_the_cell_out(embedded: VLM) -> None:
    """The third question has no image."""
    told: list[tuple[str, str, str]] = []

    @dataclass(frozen=True)
    class Patchy(Sums):
        def items(self, samples: int | None, seed: int) -> list[TaskItem]:
            pictures = task("embedded/color").items(3, 0)
            lengthened = replace(pictures[2], images=(), question=pictures[2].question + " again")
            return [*pictures[:2], lengthened]

    frame = evaluate(
        embedded,
        [Patchy()],
        {"vanilla": None, "tgvkv": TGVKV(retention=0.5)},
        batch_size=1,
        progress=False,
        on_refusal=lambda *cell: told.append(cell[:3]),
    )
    assert set(frame["method"]) == {"vanilla"} and len(frame) == 3
    assert told == [("question-first", "sums", "tgvkv")]
    with pytest.raises(InputError):
        evaluate(
            embedded, [Patchy()], {"tgvkv": TGVKV(retention=0.5)}, batch_size=1, progress=False
        )


def test_a_task_without_earlier_questions_is_told_under_all_protocols() -> None:
    told: list[tuple[str, ...]] = []
    frame = run(
        FakeVLM(echo),
        protocols=("question-first", "second-turn"),
        on_refusal=lambda *cell: told.append(cell[:3]),
    )
    assert set(frame["protocol"]) == {"question-first"}
    assert set(told) == {("second-turn", "sums", name) for name in ("vanilla", "TGV-KV")}


def test_what_was_refused_is_remembered(tmp_path: Path) -> None:
    methods = {"vanilla": None, "picky": Picky(retention=0.5)}
    told: list[str] = []
    for looked in (2, 2):
        vlm = FakeVLM(echo)
        with Store(tmp_path) as store:
            run(vlm, methods=methods, store=store, on_refusal=lambda *cell: told.append(cell[2]))
        assert vlm.layouts_checked <= looked
    assert told == ["picky", "picky"]
    assert vlm.layouts_checked == 0, "nothing was left to look at"
    with Store(tmp_path) as store, pytest.raises(UnsupportedError, match="prompt is 'this one'"):
        run(FakeVLM(echo), methods=methods, store=store)
