"""The SQLite file of a store: opened, checked, written in transactions, errors put in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analysis.asking.schema import APPLICATION_ID, FORMAT, OLDER, TABLES
from lightkv.errors import StoreError

BUSY_SECONDS = 60.0

_ADVICE = {
    "full": "{path} can't grow ({error}): free space on that disk and run the same command again; "
    "finished questions are kept",
    "unwritable": "{path} can't be opened or written ({error}): choose a folder that you may write "
    "to",
    "damaged": "{path} is damaged or not a result file ({error}): move it away, or restore a copy",
    "busy": "{path} was locked by another process for too long ({error}): wait for it to end and "
    "run the same command again; finished questions are kept",
    "other": "{path}: {error}",
}
_KINDS = {
    "full": ("SQLITE_FULL", "SQLITE_IOERR"),
    "unwritable": ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"),
    "damaged": ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"),
    "busy": ("SQLITE_BUSY", "SQLITE_LOCKED"),
}


class Database:
    """One SQLite file, or a database in memory.

    Args:
        path: The file, None for memory.
        read_only: Don't create or change anything.

    Raises:
        StoreError: It can't be opened, is damaged, or is of another format.
    """

    def __init__(self, path: Path | None, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        with self._translated():
            self._connection = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the statements inside, or none of them."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk already rolled the transaction back.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
        """Insert rows; ``conflict`` says what becomes of one whose primary key is there."""
        if not rows:
            return
        slots = ", ".join("?" * len(rows[0]))
        self._connection.executemany(f"INSERT INTO {table} VALUES ({slots}) {conflict}", rows)

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing, inside a transaction."""
        self._connection.execute(statement)

    def fill(self, content: bytes) -> None:
        """Take the place of what is held in memory by the bytes of a file.

        Raises:
            StoreError: It is damaged, or of another format.
        """
        with self._translated():
            self._connection.deserialize(content)
            self._prepare()

    @contextmanager
    def attached(self, path: Path) -> Iterator[None]:
        """Another file, read only, under the name ``other``."""
        with self._translated():
            uri = f"{path.resolve().as_uri()}?mode=ro"
            self._connection.execute("ATTACH DATABASE ? AS other", (uri,))
        try:
            yield
        finally:
            self._connection.execute("DETACH DATABASE other")

    def query(
        self, statement: str, arguments: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a SELECT."""
        with self._translated():
            cursor = self._connection.execute(statement, arguments or {})
            return [column[0] for column in cursor.description], cursor.fetchall()

    def _connect(self) -> sqlite3.Connection:
        if self.path is None:
            uri = ":memory:"
        elif self.read_only:
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            uri = self.path.resolve().as_uri()
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    def _prepare(self) -> None:
        """Create the tables of a new file, bring an older one up to date, refuse any other."""
        if not self.read_only:
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            with self.transaction():
                if self._one("SELECT count(*) FROM sqlite_master") == 0:
                    self._build(TABLES)
                    self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                elif self._is_ours() and (version := self._one("PRAGMA user_version")) in OLDER:
                    self._build(OLDER[version])
        if not self._is_ours():
            raise StoreError(f"{self.path} holds no results of this package; choose another folder")
        self._check_format()
        verdict = self._one("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise StoreError(_ADVICE["damaged"].format(path=self.path, error=verdict))

    def _build(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self._connection.execute(statement)
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _is_ours(self) -> bool:
        return bool(self._one("PRAGMA application_id") == APPLICATION_ID)

    def _check_format(self) -> None:
        version = self._one("PRAGMA user_version")
        if version in OLDER:
            raise StoreError(
                f"{self.path} is of format {version}: open it once for writing, by any command "
                f"that takes it with --out, and it becomes one of format {FORMAT}; nothing is lost"
            )
        if version != FORMAT:
            raise StoreError(
                f"{self.path} is of format {version}, this version reads {FORMAT}; choose another "
                "folder, or open it with the version that wrote it"
            )

    def _one(self, statement: str) -> Any:
        return self._connection.execute(statement).fetchone()[0]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the file system and of SQLite into :class:`StoreError` with advice."""
        try:
            yield
        except OSError as error:
            raise StoreError(_ADVICE["unwritable"].format(path=self.path, error=error)) from error
        except sqlite3.Error as error:
            advice = _ADVICE[_kind(error)]
            raise StoreError(advice.format(path=self.path, error=error)) from error


def _kind(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None) or ""
    for kind, prefixes in _KINDS.items():
        if name.startswith(prefixes):
            return kind
    return "other"
