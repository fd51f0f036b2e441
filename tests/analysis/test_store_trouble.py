"""Full disks, folders that can't be written, damaged and foreign files: said, and nothing lost."""

import os
import sqlite3
from pathlib import Path

import pytest

from analysis.asking.store import FILE_NAME, Store
from lightkv.errors import StoreError
from tests.analysis.stored import BATCH, CONFIGURATION, row, rows


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
    with pytest.raises(StoreError, match="format 99, this version reads 4"):
        Store(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / FILE_NAME) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(StoreError, match="choose another folder"):
        Store(foreign)


FORMAT_2 = """
    CREATE TABLE configurations (
        key TEXT PRIMARY KEY, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
        method TEXT NOT NULL, parameters TEXT NOT NULL, task TEXT NOT NULL,
        task_fingerprint TEXT NOT NULL, protocol TEXT NOT NULL, metric TEXT NOT NULL,
        seed INTEGER NOT NULL, max_new_tokens INTEGER NOT NULL, dtype TEXT NOT NULL,
        attention TEXT NOT NULL, device TEXT NOT NULL, revision TEXT NOT NULL,
        versions TEXT NOT NULL);
    CREATE TABLE answers (
        key TEXT NOT NULL REFERENCES configurations (key), item INTEGER NOT NULL,
        identity TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL,
        reference TEXT NOT NULL, score REAL, kv_bytes INTEGER NOT NULL,
        full_kv_bytes INTEGER NOT NULL, requested_retention REAL,
        achieved_retention REAL NOT NULL, token_layers INTEGER NOT NULL,
        full_token_layers INTEGER NOT NULL, generated_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL, warnings TEXT NOT NULL, PRIMARY KEY (key, item));
    CREATE TABLE frames (
        key TEXT PRIMARY KEY, study TEXT NOT NULL, configuration TEXT NOT NULL,
        content TEXT NOT NULL);
    INSERT INTO configurations VALUES
        ('k1', 'toy', 'f00d', 'TGVKV', 'TGVKV()', 'embedded/read', 'generated', 'question-first',
         'exact', 0, 6, 'float32', 'sdpa', 'cpu', 'abc', '{}'),
        ('k2', 'toy', 'f00d', 'vanilla', 'vanilla', 'caps', '12', 'question-first',
         'cider', 0, 6, 'float32', 'sdpa', 'cpu', 'abc', '{}');
    INSERT INTO answers VALUES
        ('k1', 0, '0/0', 'q', 'a', '["a", "b"]', 1.0, 100, 400, .25, .25, 60, 80, 5, .5, '["w"]'),
        ('k1', 1, '0/1', 'q', 'x', '["a"]', 0.0, 100, 400, .25, .25, 60, 80, 5, .5, '[]'),
        ('k2', 0, '0/0', 'q', 'c', '["d"]', NULL, 400, 400, NULL, 1.0, 80, 80, 5, .5, '[]');
    INSERT INTO frames VALUES ('f', 'study', '{}', '{}');
    PRAGMA application_id = 1818981937;
    PRAGMA user_version = 2;
"""


def older(folder: Path) -> Path:
    """A store as the version before wrote it."""
    folder.mkdir()
    with sqlite3.connect(folder / FILE_NAME) as connection:
        connection.executescript(FORMAT_2)
    connection.close()
    return folder


def test_an_older_store_is_brought_up_to_date_with_every_row(tmp_path: Path) -> None:
    folder = older(tmp_path / "old")
    with Store(folder) as store:
        frame = store.rows()
    assert frame["key"].tolist() == ["k2", "k1", "k1"]
    assert frame["metric"].tolist() == ["cider", "exact", "exact"]
    assert frame["score"].tolist()[1:] == [1.0, 0.0] and frame["score"].isna().tolist()[0]
    assert frame["reference"].tolist() == [["d"], ["a", "b"], ["a"]]
    assert frame["warnings"].tolist() == [[], ["w"], []]
    assert frame["answer"].tolist() == ["c", "a", "x"]
    assert frame["kv_bytes"].tolist() == [400, 100, 100]
    assert frame["picture"].tolist() == ["0/0", "0/0", "0/1"]
    with Store(folder, read_only=True) as again:
        assert len(again.rows()) == 3
        assert again.finished("k1") == {0, 1}
    with sqlite3.connect(folder / FILE_NAME) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert connection.execute("SELECT count(*) FROM frames").fetchone() == (1,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert not {name for name in names if name.startswith("old_")}


def test_a_store_without_facts_gets_room_for_them(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, [row(0)])
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("ALTER TABLE answers DROP COLUMN facts")
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(StoreError, match="format 3: open it once for writing"):
        Store(tmp_path, read_only=True)
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, [row(0, answer="new"), row(1, facts={"hint": "right"})])
        frame = store.rows()
    assert frame["answer"].tolist() == ["1 2 3 4"] * 2
    assert frame["fact_hint"].isna().tolist() == [True, False]


def test_an_older_store_that_may_not_be_written_says_what_to_do(tmp_path: Path) -> None:
    folder = older(tmp_path / "old")
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match="format 2: open it once for writing"):
        Store(folder, read_only=True)
    assert (folder / FILE_NAME).read_bytes() == before


def test_a_store_that_can_not_be_brought_up_to_date_stays_as_it_is(tmp_path: Path) -> None:
    folder = older(tmp_path / "old")
    with sqlite3.connect(folder / FILE_NAME) as connection:
        connection.execute("CREATE TABLE outcomes (in_the_way TEXT)")
    connection.close()
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match="outcomes already exists"):
        Store(folder)
    assert (folder / FILE_NAME).read_bytes() == before
