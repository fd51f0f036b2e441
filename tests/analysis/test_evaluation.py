"""Evaluation: checked before it runs, stored as it goes, picked up where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from analysis.asking.evaluation import evaluate
from analysis.asking.jobs import Shard
from analysis.asking.opening import Description, UnloadedVLM, loaded, open_model
from analysis.asking.store import Store
from analysis.scoring.metrics import METRICS, Metric, each, register
from analysis.tasks import Task, TaskItem, task
from lightkv import TGVKV, VLM, LightKV, Request
from lightkv.catalogue import method
from lightkv.contract.compressor import Compressor
from lightkv.errors import (
    InputError,
    InvalidValueError,
    LightKVError,
    ModelError,
    UnknownNameError,
    UnsupportedError,
)
from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.fastv import FastV
from tests.analysis.fake import FakeVLM, Picky
from tests.closeness import assert_close

READ = "embedded/read"


@dataclass(frozen=True)
class Sums(Task):
    """Made-up questions of two lengths."""

    metric_name: str = "exact"

    name = "sums"
    max_new_tokens = 5
    fingerprint = "1"

    @property
    def metric(self) -> str:
        return self.metric_name

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        return [
            TaskItem(number, str(number), (), "q" * (1 + number % 2) + str(number), (str(number),))
            for number in range(samples or 12)
        ]


def echo(request: Request, compressor: Compressor | None) -> str:
    """Right without a compressor; with one, every fourth answer is wrong."""
    number = request.question.lstrip("q")
    return "wrong" if compressor is not None and int(number) % 4 == 0 else number


def run(vlm: Any, **changes: Any) -> pd.DataFrame:
    usual: dict[str, Any] = {
        "tasks": [Sums()],
        "methods": {"vanilla": None, "TGV-KV": TGVKV(retention=0.5)},
        "samples": 10,
        "batch_size": 4,
        "progress": False,
    }
    usual.update(changes)
    return evaluate(vlm, **usual)


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


def scored_as(name: str, score: Any) -> Iterator[None]:
    """A metric of that name that scores so."""
    before = METRICS.get(name)
    register(Metric(name, each(score)))
    yield
    del METRICS[name]
    if before is not None:
        METRICS[name] = before


def half(answer: str, references: Any) -> float:
    return 0.5


def test_a_changed_metric_never_asks_a_model_again(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        first = FakeVLM(echo)
        frame = run(first, store=store)
        assert first.asked == 20
        with contextmanager(scored_as)("exact", half):
            again = FakeVLM(echo)
            changed = run(again, store=store)
            assert again.asked == 0
            assert changed["score"].tolist() == [0.5] * 20
        # Another metric of the same questions, beside the first.
        other = FakeVLM(echo)
        beside = run(other, tasks=[Sums("anls")], store=store)
        assert other.asked == 0
        assert set(beside["metric"]) == {"anls"}
        back = FakeVLM(echo)
        pd.testing.assert_frame_equal(run(back, store=store), frame)
        assert back.asked == 0


def test_other_right_answers_are_scored_from_the_stored_answers(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    file = tmp_path / "toy.jsonl"

    def ask(right: str) -> tuple[float, int, list[Any]]:
        lines = [
            {"image": "a.png", "question": f"q{number}", "answer": right} for number in range(4)
        ]
        file.write_text("\n".join(map(json.dumps, lines)))
        vlm = FakeVLM(lambda *_: "7")
        with Store(tmp_path / "results") as store:
            frame = run(vlm, tasks=[f"folder:{file}"], samples=4, store=store)
        return float(frame["score"].mean()), vlm.asked, frame["reference"].tolist()[0]

    assert ask("3") == (0.0, 8, ["3"])
    assert ask("7") == (1.0, 0, ["7"])
    assert ask("3") == (0.0, 0, ["3"])


def test_answers_that_were_stored_without_an_outcome_are_scored(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        run(FakeVLM(echo), store=store)
        database = store._database
        with database.transaction():
            database._connection.execute("DELETE FROM outcomes WHERE item < 5")
        vlm = FakeVLM(echo)
        frame = run(vlm, store=store)
        assert vlm.asked == 0
        assert not frame["score"].isna().any()


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


def test_nothing_left_means_nothing_loaded(embedded: VLM, tmp_path: Path) -> None:
    def opened(store: Store, **changes: Any) -> VLM | UnloadedVLM:
        usual: dict[str, Any] = {"device": "cpu", "dtype": None, "attention": "sdpa"}
        return open_model(store, None, **{**usual, **changes})

    def ask(store: Store, vlm: Any, samples: int) -> pd.DataFrame:
        return evaluate(
            vlm,
            ["embedded/color"],
            {"vanilla": None, "tgvkv": TGVKV(retention=0.5)},
            samples=samples,
            store=store,
            progress=False,
        )

    with Store(tmp_path) as store:
        first = opened(store)
        assert isinstance(first, VLM)
        frame = ask(store, first, 2)
        again = opened(store)
        assert isinstance(again, UnloadedVLM)
        pd.testing.assert_frame_equal(ask(store, again, 2), frame)
        assert not again.is_loaded
        assert len(ask(store, again, 3)) == 6
        assert again.is_loaded, "a third question was left"
        assert isinstance(opened(store, attention="eager"), VLM), "settings are told apart"


def test_an_unloaded_model_says_the_same_as_the_loaded_one(embedded: VLM) -> None:
    known = UnloadedVLM(Description.of(embedded), lambda: embedded)
    for name in ("name", "fingerprint", "attention", "dtype", "facts", "device"):
        assert getattr(known, name) == getattr(embedded, name)
    assert type(known.family) is type(embedded.family)
    assert loaded(known) is embedded and loaded(embedded) is embedded


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_together_ask_what_a_whole_run_asks(count: int, tmp_path: Path) -> None:
    whole = FakeVLM(echo)
    expected = run(whole)
    batches: list[list[str]] = []
    parts = []
    with Store(tmp_path) as store:
        for number in range(1, count + 1):
            vlm = FakeVLM(echo)
            parts.append(run(vlm, store=store, shard=Shard(number, count)))
            batches += vlm.batches
        rest = FakeVLM(echo)
        frame = run(rest, store=store)
    assert rest.asked == 0
    assert sorted(batches) == sorted(whole.batches)
    assert sum(map(len, parts)) == 20
    timed = ["seconds"]
    pd.testing.assert_frame_equal(frame.drop(columns=timed), expected.drop(columns=timed))


def test_a_shard_is_picked_up_where_it_stopped(tmp_path: Path) -> None:
    stopped = FakeVLM(echo, fail_after=1)
    with Store(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        run(stopped, store=store, batch_size=2, shard=Shard(1, 2))
    resumed, whole = FakeVLM(echo), FakeVLM(echo)
    with Store(tmp_path) as store:
        run(resumed, store=store, batch_size=2, shard=Shard(1, 2))
    run(whole, batch_size=2, shard=Shard(1, 2))
    assert stopped.batches + resumed.batches == whole.batches
    assert 0 < whole.asked < 20


@pytest.mark.parametrize(
    "text", ["3/2", "0/2", "-1/2", "1/0", "1", "1/", "/2", "a/b", "1.5/2", "1/2/3", "", "1:2"]
)
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"shard is .* allowed: I/N"):
        Shard.read(text)


def test_shards_are_read() -> None:
    assert (Shard.read("1/1"), Shard.read(" 2 / 4 ")) == (Shard(1, 1), Shard(2, 4))
