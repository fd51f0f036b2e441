"""Evaluation: checked before it runs, stored as it goes, picked up where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from analysis.asking.evaluation import evaluate
from analysis.asking.store import Store
from analysis.tasks import task
from lightkv import TGVKV, VLM, LightKV
from lightkv.catalogue import method
from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError, LightKVError, UnknownNameError, UnsupportedError
from tests.analysis.asked import Sums, echo, run
from tests.analysis.fake import FakeVLM, Picky
from tests.closeness import assert_close

READ = "embedded/read"


def test_one_row_per_method_and_question() -> None:
    frame = run(FakeVLM(echo))
    assert frame["method"].tolist() == ["vanilla"] * 10 + ["TGV-KV"] * 10
    assert frame["item"].tolist() == [*range(10), *range(10)]
    vanilla, tgv = frame[:10], frame[10:]
    assert vanilla["score"].tolist() == [1.0] * 10
    assert tgv["score"].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    assert vanilla["kv_share"].tolist() == [1.0] * 10
    assert tgv["kv_share"].tolist() == [0.5] * 10
    assert vanilla["requested_retention"].isna().all()
    assert tgv["requested_retention"].tolist() == [0.5] * 10
    assert set(vanilla["parameters"]) == {"vanilla"}
    assert set(tgv["parameters"]) == {repr(TGVKV(retention=0.5))}
    assert frame["token_share"].tolist() == [1.0] * 20


def test_batches_hold_questions_of_similar_length() -> None:
    vlm = FakeVLM(echo)
    run(vlm, methods={"vanilla": None})
    lengths = [[len(question) for question in batch] for batch in vlm.batches]
    assert lengths == [[2, 2, 2, 2], [2, 3, 3, 3], [3, 3]]


def test_interrupt_keeps_finished_batches_and_resumes(tmp_path: Path) -> None:
    stopped = FakeVLM(echo, fail_after=4)
    with Store(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        run(stopped, store=store)
    resumed = FakeVLM(echo)
    with Store(tmp_path) as store:
        assert len(store.rows()) == stopped.asked == 14
        frame = run(resumed, store=store)
    assert stopped.asked + resumed.asked == 20
    whole = FakeVLM(echo)
    expected = run(whole)
    assert stopped.batches + resumed.batches == whole.batches
    timed = ["seconds"]
    pd.testing.assert_frame_equal(frame.drop(columns=timed), expected.drop(columns=timed))


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    vlm = FakeVLM(echo)
    with Store(tmp_path) as store:
        run(vlm, store=store)
        assert vlm.asked == 20
        run(vlm, store=store)
        assert vlm.asked == 20
        run(vlm, store=store, batch_size=3)
        assert vlm.asked == 20
        assert len(run(vlm, store=store, samples=5)) == 10
        assert vlm.asked == 20
        run(vlm, store=store, samples=12)
        assert vlm.asked == 24
        run(vlm, store=store, seed=1)
        assert vlm.asked == 44
        run(vlm, store=store, max_new_tokens=3)
        assert vlm.asked == 64


def test_other_weights_or_code_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        run(FakeVLM(echo), store=store)
        other = FakeVLM(echo, fingerprint="beef")
        run(other, store=store)
        assert other.asked == 20
        monkeypatch.setattr("analysis.provenance.code_of", lambda *_: "changed")
        again = FakeVLM(echo)
        frame = run(again, store=store)
        assert again.asked == 20
        assert set(frame["revision"]) == {"changed"}


def test_two_labels_of_one_compressor_are_asked_once() -> None:
    vlm = FakeVLM(echo)
    same = {"a": TGVKV(retention=0.5), "b": TGVKV(retention=0.5)}
    frame = run(vlm, methods=same)
    assert vlm.asked == 10
    assert frame["method"].tolist() == ["a"] * 10 + ["b"] * 10
    assert frame["score"][:10].tolist() == frame["score"][10:].tolist()


def test_corpus_metrics_have_no_score_per_question() -> None:
    frame = run(FakeVLM(echo), tasks=[Sums("cider")], methods={"vanilla": None})
    assert frame["score"].isna().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": []},
        {"tasks": [Sums(), Sums()]},
        {"tasks": ["embedded/nothing"]},
        {"tasks": [READ, "folder:missing.jsonl"]},
        {"tasks": [READ], "samples": 0},
        {"tasks": [READ], "samples": None},
        {"methods": {}},
        {"methods": {"vanilla": None, "late": TGVKV(retention=1.5)}},
        {"methods": {"vanilla": None, "late": LightKV((9,), (1,), (0.5,))}},
        {"methods": {"vanilla": None, "late": Picky(retention=0.5)}},
        {"batch_size": 0},
        {"seed": -1},
        {"max_new_tokens": 0},
    ],
)
def test_everything_is_checked_before_the_model_runs(changes: dict[str, Any]) -> None:
    vlm = FakeVLM(echo)
    with pytest.raises(LightKVError):
        run(vlm, **changes)
    assert vlm.batches == []


def test_full_device_memory_says_what_to_change() -> None:
    full = FakeVLM(echo, fail_after=1, error=torch.OutOfMemoryError)
    with Store(None) as store:
        with pytest.raises(InvalidValueError, match="batch_size is 4; allowed: fewer"):
            run(full, store=store)
        assert len(store.rows()) == 4


@dataclass(frozen=True)
class Opaque(Picky):
    """Holds something that does not print as what it is."""

    helper: object = field(default_factory=object)


def test_a_method_that_does_not_print_is_refused() -> None:
    vlm = FakeVLM(echo)
    with pytest.raises(UnsupportedError, match="told from another"):
        run(vlm, methods={"opaque": Opaque()})
    assert vlm.batches == []


def test_unknown_task_is_named() -> None:
    with pytest.raises(UnknownNameError, match="embedded/read"):
        run(FakeVLM(echo), tasks=["embedded/reed"])


def test_progress_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    run(FakeVLM(echo), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "20/20" in captured.err
    run(FakeVLM(echo), progress=False)
    assert capsys.readouterr().err == ""


def test_the_embedded_model(embedded: VLM, tmp_path: Path) -> None:
    methods: dict[str, Compressor | None] = {
        "vanilla": None,
        "TGV-KV": TGVKV(retention=0.2),
        "LightKV": LightKV((2, 4, 6), (4, 2, 1), (0.5, 0.5, 0.5)),
        "random": method("random", 0.2),
    }
    with Store(tmp_path) as store:
        frame = evaluate(
            embedded, ["embedded/color", READ], methods, samples=3, store=store, progress=False
        )
        again = evaluate(
            embedded, ["embedded/color", READ], methods, samples=3, store=store, progress=False
        )
    pd.testing.assert_frame_equal(frame, again)
    assert len(frame) == 4 * 2 * 3
    by_method = frame.groupby("method")
    assert (by_method["kv_share"].mean()["vanilla"]) == 1
    assert by_method["kv_share"].mean()["TGV-KV"] == pytest.approx(0.2, abs=0.01)
    assert by_method["token_share"].mean()["TGV-KV"] == 1
    assert by_method["token_share"].mean()["LightKV"] < 0.8
    assert_close(frame["kv_share"], frame["achieved_retention"])
    vanilla = frame[(frame["method"] == "vanilla") & (frame["task"] == READ)]
    alone = [
        embedded.ask_many([item.request()], max_new_tokens=6)[0].text
        for item in task(READ).items(3, 0)
    ]
    assert alone == vanilla["answer"].tolist()


def test_answers_do_not_depend_on_the_batch_size(embedded: VLM) -> None:
    # Prompts of 273, 272, 273 tokens of which each row keeps equally many entries per layer.
    methods: dict[str, Compressor | None] = {"random": method("random", 0.1)}
    together, alone = (
        evaluate(embedded, ["embedded/count"], methods, samples=3, batch_size=size, progress=False)
        for size in (3, 1)
    )
    told = ["item", "answer", "score", "kv_bytes", "achieved_retention", "token_layers"]
    pd.testing.assert_frame_equal(together[told], alone[told])


def test_settings_errors_name_the_value() -> None:
    with pytest.raises(InvalidValueError, match="batch_size is 0"):
        run(FakeVLM(echo), batch_size=0)
