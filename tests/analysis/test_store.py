"""What the store promises: nothing finished is lost, nothing half-written is seen."""

import dataclasses
import os
import signal
import sqlite3
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

from analysis.rows import Configuration, Row
from analysis.store import FILE_NAME, Store
from lightkv.errors import StoreError

BATCH = 5
CONFIGURATION = Configuration(
    model="toy",
    fingerprint="f00d",
    method="TGVKV",
    parameters="TGVKV(retention=0.05)",
    task="embedded/read",
    task_fingerprint="generated",
    metric="exact",
    seed=0,
    max_new_tokens=6,
    dtype="float32",
    attention="sdpa",
    device="cpu",
    revision="abc",
    versions="{}",
)


def row(item: int, **changes: Any) -> Row:
    given = Row(
        item=item,
        identity=f"0/{item}",
        question="what is the red number ?",
        answer="1 2 3 4",
        references=("1 2 3 4",),
        score=1.0,
        kv_bytes=100,
        full_kv_bytes=400,
        requested_retention=0.25,
        achieved_retention=0.25,
        token_layers=60,
        full_token_layers=80,
        generated_tokens=5,
        seconds=0.5,
    )
    return dataclasses.replace(given, **changes)


def rows(*items: int) -> list[Row]:
    return [row(item) for item in items]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    with Store(tmp_path / "new" / "folder") as store:
        given = row(1, answer="Größe \u2713 \x00 '; DROP TABLE answers", warnings=("skipped",))
        store.add(CONFIGURATION, [row(0), given, row(2, score=None, requested_retention=None)])
    with Store(tmp_path / "new" / "folder", read_only=True) as store:
        frame = store.rows()
    assert frame["item"].tolist() == [0, 1, 2]
    assert frame["answer"][1] == given.answer
    assert frame["reference"][0] == ["1 2 3 4"]
    assert frame["warnings"][1] == ["skipped"]
    assert frame["kv_share"].tolist() == [0.25] * 3
    assert frame["token_share"].tolist() == [0.75] * 3
    assert frame["score"].isna().tolist() == [False, False, True]
    assert frame["requested_retention"].dtype == float
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
    [f.name for f in dataclasses.fields(Configuration) if f.name not in ("model", "method")],
)
def test_the_key_follows_everything_an_answer_depends_on(field: str) -> None:
    value = getattr(CONFIGURATION, field)
    other = value + 1 if isinstance(value, int) else value + "x"
    changes: dict[str, Any] = {field: other}
    changed = dataclasses.replace(CONFIGURATION, **changes)
    assert changed.key != CONFIGURATION.key


def test_the_key_does_not_follow_labels() -> None:
    renamed = dataclasses.replace(CONFIGURATION, model="elsewhere", method="full method")
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


WRITER = """
import sys
from analysis.store import Store
from tests.analysis.test_store import BATCH, CONFIGURATION, rows
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


def test_disk_full_keeps_what_is_stored_and_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(CONFIGURATION, rows(*range(BATCH)))
    # SQLite reports this limit exactly as it reports a full disk.
    pages = store._database._connection.execute("PRAGMA page_count").fetchone()[0]
    store._database._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="free space on that disk and run the same command again"):
        store.add(CONFIGURATION, [row(item, question="x" * 5000) for item in range(100, 200)])
    assert store.finished(CONFIGURATION.key) == set(range(BATCH))
    store.close()
    with Store(tmp_path) as reopened:
        reopened.add(CONFIGURATION, rows(*range(100, 200)))
        assert len(reopened.rows()) == BATCH + 100


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a folder that you may write to"):
        Store(tmp_path / "file" / "folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="choose a folder that you may write to"):
        Store(tmp_path)


def test_a_read_only_database_is_not_written(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, rows(0))
    before = (tmp_path / FILE_NAME).read_bytes()
    with Store(tmp_path, read_only=True) as store:
        with pytest.raises(StoreError, match="choose a folder that you may write to"):
            store.add(CONFIGURATION, rows(1))
        assert store.finished(CONFIGURATION.key) == {0}
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_reading_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("content", [b"no database at all, but long enough" * 200, b"SQLite"])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StoreError, match="move it away, or restore a copy"):
        Store(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_damaged_file(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, [row(item, question="x" * 500) for item in range(200)])
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 9000] = b"\xff" * 9000
    file.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path)


def test_a_truncated_file(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, [row(item, question="x" * 500) for item in range(200)])
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[: 3 * 4096])
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path)


def test_another_format_and_another_program(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="format 99, this version reads 1"):
        Store(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / FILE_NAME) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(StoreError, match="choose another folder"):
        Store(foreign)


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
