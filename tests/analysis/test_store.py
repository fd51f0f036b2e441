"""What the store promises: nothing finished is lost, nothing half-written is seen."""

import dataclasses
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.asking.rows import LABELS, Configuration, Scorer
from analysis.asking.store import Store
from lightkv.errors import StoreError
from tests.analysis.stored import BATCH, CONFIGURATION, SCORER, outcome, outcomes, row, rows


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    with Store(tmp_path / "new" / "folder") as store:
        odd = row(1, answer="Größe \u2713 \x00 '; DROP TABLE answers", warnings=("skipped",))
        last = row(2, requested_retention=None, facts={"hint": "wrong", "tokens": 12})
        asked = [row(0), odd, last]
        scored = [outcome(0), outcome(1), outcome(2, None)]
        store.add(CONFIGURATION, asked, SCORER, scored)
    with Store(tmp_path / "new" / "folder", read_only=True) as store:
        frame = store.rows()
    assert frame["item"].tolist() == [0, 1, 2]
    assert frame["answer"][1] == odd.answer
    assert frame["reference"][0] == ["1 2 3 4"]
    assert frame["warnings"][1] == ["skipped"]
    assert frame["kv_share"].tolist() == [0.25] * 3
    assert frame["token_share"].tolist() == [0.75] * 3
    assert frame["score"].isna().tolist() == [False, False, True]
    assert frame["requested_retention"].dtype == float
    assert frame["fact_hint"].isna().tolist() == [True, True, False]
    assert frame["fact_hint"][2] == "wrong"
    assert frame["fact_tokens"][2] == 12 and "facts" not in frame.columns
    assert set(frame["parameters"]) == {CONFIGURATION.parameters}


def test_a_finished_row_is_never_overwritten() -> None:
    store = Store(None)
    store.add(CONFIGURATION, [row(0, answer="first")])
    store.add(CONFIGURATION, [row(0, answer="second"), row(1)])
    assert store.rows()["answer"].tolist() == ["first", "1 2 3 4"]
    assert store.finished(CONFIGURATION.key) == {0, 1}


def test_an_empty_store_has_all_columns() -> None:
    frame = Store(None).rows()
    assert len(frame) == 0
    assert {"key", "method", "task", "item", "score", "kv_share"} <= set(frame.columns)


@pytest.mark.parametrize(
    "field",
    [f.name for f in dataclasses.fields(Configuration) if f.name not in LABELS],
)
def test_the_key_follows_everything_an_answer_depends_on(field: str) -> None:
    value = getattr(CONFIGURATION, field)
    other = value + 1 if isinstance(value, int) else value + "x"
    changes: dict[str, Any] = {field: other}
    changed = dataclasses.replace(CONFIGURATION, **changes)
    assert changed.key != CONFIGURATION.key


def test_the_key_does_not_follow_labels() -> None:
    labels: dict[str, Any] = dict.fromkeys(LABELS, "other")
    renamed = dataclasses.replace(CONFIGURATION, **labels)
    assert renamed.key == CONFIGURATION.key


def test_rows_of_chosen_keys_only() -> None:
    store = Store(None)
    other = dataclasses.replace(CONFIGURATION, seed=1)
    store.add(CONFIGURATION, rows(0, 1))
    store.add(other, rows(0))
    assert store.rows([other.key])["seed"].tolist() == [1]
    assert len(store.rows([])) == 0
    assert len(store.rows()) == 3


def test_a_failed_batch_leaves_nothing_behind() -> None:
    store = Store(None)
    broken = row(2, kv_bytes=None)
    with pytest.raises(StoreError, match="NOT NULL"):
        store.add(CONFIGURATION, [*rows(0, 1), broken])
    assert store.finished(CONFIGURATION.key) == frozenset()
    store.add(CONFIGURATION, rows(0, 1))
    assert store.finished(CONFIGURATION.key) == {0, 1}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Scorer)])
def test_the_scorer_follows_everything_an_outcome_depends_on(field: str) -> None:
    changes: dict[str, Any] = {field: getattr(SCORER, field) + "x"}
    assert dataclasses.replace(SCORER, **changes).key != SCORER.key


def test_outcomes_of_several_metrics_stand_beside_each_other() -> None:
    store = Store(None)
    store.add(CONFIGURATION, rows(0, 1), SCORER, outcomes(0, 1))
    other = dataclasses.replace(SCORER, metric="anls")
    assert store.unscored(CONFIGURATION.key, other) == [(0, "1 2 3 4"), (1, "1 2 3 4")]
    store.score(CONFIGURATION.key, other, [outcome(1, 0.5)])
    frame = store.rows()
    shown = list(zip(frame["metric"], frame["item"], frame["score"], strict=True))
    assert shown == [("anls", 1, 0.5), ("exact", 0, 1.0), ("exact", 1, 1.0)]
    assert store.rows(scorers=[SCORER])["metric"].tolist() == ["exact", "exact"]
    assert store.unscored(CONFIGURATION.key, other) == [(0, "1 2 3 4")]
    assert store.unscored(CONFIGURATION.key, SCORER) == []


def test_the_latest_scorer_of_a_metric_is_shown_unless_one_is_asked_for() -> None:
    store = Store(None)
    store.add(CONFIGURATION, rows(0), SCORER, [outcome(0, 0.0)])
    corrected = dataclasses.replace(SCORER, code="corrected")
    store.score(CONFIGURATION.key, corrected, [outcome(0, 1.0)])
    assert store.rows()["score"].tolist() == [1.0]
    assert store.rows(scorers=[SCORER])["score"].tolist() == [0.0]
    assert store.rows(scorers=[corrected])["score"].tolist() == [1.0]


def test_an_answer_without_an_outcome_has_no_score() -> None:
    store = Store(None)
    store.add(CONFIGURATION, rows(0, 1), SCORER, outcomes(0))
    frame = store.rows()
    by_item = frame.set_index("item")["score"]
    assert by_item[0] == 1.0 and np.isnan(by_item[1])
    assert frame.set_index("item")["reference"][1] == []
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.score(CONFIGURATION.key, SCORER, outcomes(7))
    assert len(store.rows()) == 2


def test_answers_and_outcomes_are_stored_together_or_not_at_all() -> None:
    store = Store(None)
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.add(CONFIGURATION, rows(0), SCORER, outcomes(0, 1))
    assert store.finished(CONFIGURATION.key) == frozenset()


def test_refusals_and_models_are_remembered(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.refusal("k") is None and store.model("m") is None
        store.note_refusal("k", "first")
        store.note_refusal("k", "second")
        store.note_model("m", "{}")
    with Store(tmp_path, read_only=True) as store:
        assert store.refusal("k") == "first"
        assert store.model("m") == "{}"


WRITER = """
import sys
from analysis.asking.store import Store
from tests.analysis.stored import BATCH, CONFIGURATION, rows
with Store(sys.argv[1]) as store:
    done = len(store.finished(CONFIGURATION.key))
    for start in range(done, 10**6, BATCH):
        store.add(CONFIGURATION, rows(*range(start, start + BATCH)))
        sys.stdout.write(f"{start + BATCH}\\n")
        sys.stdout.flush()
"""


def test_kill_in_mid_write_loses_no_finished_row(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    finished = 0
    for batches in (1, 4, 9):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        reported = [int(writer.stdout.readline()) for _ in range(batches)]
        writer.send_signal(signal.SIGKILL)
        reported += [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        assert reported[0] == finished + BATCH, "the second process goes on where the first ended"
        with Store(tmp_path) as store:
            items = sorted(store.finished(CONFIGURATION.key))
        assert items == list(range(len(items)))
        assert len(items) % BATCH == 0
        assert len(items) >= reported[-1]
        finished = len(items)


def test_a_reader_sees_whole_batches_while_a_writer_writes(tmp_path: Path) -> None:
    Store(tmp_path).close()
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        with Store(tmp_path, read_only=True) as reader:
            while not stop.is_set():
                seen.append(len(reader.rows()))

    thread = threading.Thread(target=read)
    thread.start()
    with Store(tmp_path) as writer:
        for start in range(0, 20 * BATCH, BATCH):
            writer.add(CONFIGURATION, rows(*range(start, start + BATCH)))
            time.sleep(0.005)
    stop.set()
    thread.join()
    assert all(count % BATCH == 0 for count in seen)
    assert seen == sorted(seen)


def test_two_writers_share_a_store(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    for start in range(0, 40, BATCH):
        first.add(CONFIGURATION, rows(*range(start, start + BATCH)))
        second.add(CONFIGURATION, rows(*range(start, start + BATCH)))
    assert first.finished(CONFIGURATION.key) == second.finished(CONFIGURATION.key)
    assert len(first.rows()) == 40


def test_frames_come_back_exactly(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "name": ["a", "ü"],
            "value": [0.1 + 0.2, np.nan],
            "count": [1, 2**53 + 1],
            "flag": [True, False],
            "missing": [None, "x"],
        }
    )
    configuration = {"samples": 3, "layers": [1, 2]}
    with Store(tmp_path) as store:
        assert store.load_frame("study", configuration) is None
        store.save_frame("study", configuration, frame.iloc[:1])
        store.save_frame("study", configuration, frame)
    with Store(tmp_path, read_only=True) as store:
        loaded = store.load_frame("study", configuration)
        assert loaded is not None
        pd.testing.assert_frame_equal(loaded, frame)
        assert store.load_frame("study", {"samples": 4, "layers": [1, 2]}) is None
        assert store.load_frame("other", configuration) is None
