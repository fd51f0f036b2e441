"""Answers that are stored are scored again, and never asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from analysis.asking.evaluation import evaluate
from analysis.asking.opening import Description, UnloadedVLM, loaded, open_model
from analysis.asking.store import Store
from analysis.scoring.metrics import METRICS, Metric, each, register
from lightkv import TGVKV, VLM
from tests.analysis.asked import Sums, echo, run
from tests.analysis.fake import FakeVLM


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
