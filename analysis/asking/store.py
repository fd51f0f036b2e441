"""Results on disk: one row per question, written as it goes, in one SQLite file per folder.

A batch of rows is one transaction, so whatever stops the process, a row is there as a whole or
not at all, and what is there is never asked again. The rollback journal is used, not the
write-ahead log: it also works on network folders and for readers without the right to write, and
a batch is written once in seconds.

Rows belong to a :class:`~analysis.asking.rows.Configuration`. Its key is a digest of everything
that an answer depends on, so results of another model, method, seed, library or revision of the
code are never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from analysis.asking.database import Database
from analysis.asking.rows import Configuration, Row, digest_of

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "results.sqlite"
_KEEP_FIRST = "ON CONFLICT DO NOTHING"
_KEEP_LAST = "ON CONFLICT DO UPDATE SET content = excluded.content"


class Store:
    """Results in a folder.

    Several processes may read and write at once. Use it as a context manager, or close it.

    Args:
        folder: Where ``results.sqlite`` lies or will lie; None keeps results in memory.
        read_only: Don't create or change anything.

    Raises:
        StoreError: The folder can't be written, or the file is damaged or not of this format.
    """

    def __init__(self, folder: str | Path | None, *, read_only: bool = False) -> None:
        self.path = Path(folder) / FILE_NAME if folder is not None else None
        self._database = Database(self.path, read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def finished(self, key: str) -> frozenset[int]:
        """Items of a configuration that are stored."""
        _, found = self._database.query("SELECT item FROM answers WHERE key = ?", (key,))
        return frozenset(int(item) for (item,) in found)

    def add(self, configuration: Configuration, rows: Sequence[Row]) -> None:
        """Store rows, all or none. A row that is there already stays as it is.

        Raises:
            StoreError: They can't be written; nothing of what was stored before is lost.
        """
        key = configuration.key
        own = (key, *asdict(configuration).values())
        with self._database.transaction():
            self._database.insert("configurations", [own], _KEEP_FIRST)
            self._database.insert("answers", [(key, *row.values()) for row in rows], _KEEP_FIRST)

    def rows(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """Rows of some configurations (default: all) with what they belong to.

        ``reference`` and ``warnings`` are lists; ``kv_share`` and ``token_share`` are what was
        held and processed, as shares of the uncompressed run.
        """
        import pandas as pd

        chosen = None if keys is None else sorted(set(keys))
        join = "SELECT * FROM configurations JOIN answers USING (key)"
        if chosen is not None:
            join += " WHERE key IN (SELECT value FROM json_each(?))"
        arguments = () if chosen is None else (json.dumps(chosen),)
        columns, rows = self._database.query(
            join + " ORDER BY task, parameters, seed, key, item", arguments
        )
        frame = pd.DataFrame(rows, columns=columns)
        frame = frame.astype({"score": float, "requested_retention": float})
        for column in ("reference", "warnings"):
            frame[column] = [json.loads(text) for text in frame[column]]
        frame["kv_share"] = frame["kv_bytes"] / frame["full_kv_bytes"]
        frame["token_share"] = frame["token_layers"] / frame["full_token_layers"]
        return frame

    def save_frame(self, study: str, configuration: Mapping[str, Any], frame: pd.DataFrame) -> None:
        """Store a whole table under a study's name and configuration, replacing an older one.

        Raises:
            StoreError: It can't be written.
        """
        table = frame.to_dict("split", index=False)
        content = {**table, "dtypes": [str(dtype) for dtype in frame.dtypes]}
        key = digest_of({"study": study, **configuration})
        given = (key, study, json.dumps(configuration, sort_keys=True), json.dumps(content))
        with self._database.transaction():
            self._database.insert("frames", [given], _KEEP_LAST)

    def load_frame(self, study: str, configuration: Mapping[str, Any]) -> pd.DataFrame | None:
        """The table of a study and configuration, None if there is none."""
        import pandas as pd

        key = digest_of({"study": study, **configuration})
        _, found = self._database.query("SELECT content FROM frames WHERE key = ?", (key,))
        if not found:
            return None
        content = json.loads(found[0][0])
        frame = pd.DataFrame(content["data"], columns=content["columns"])
        return frame.astype(dict(zip(content["columns"], content["dtypes"], strict=True)))
