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
    with pytest.raises(StoreError, match="format 99, this version reads 2"):
        Store(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / FILE_NAME) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(StoreError, match="choose another folder"):
        Store(foreign)
