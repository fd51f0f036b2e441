"""Results on disk: one row per question, written as it goes, in one SQLite file per folder.

A batch of rows is one transaction, so whatever stops the process, a row is there as a whole or
not at all, and what is there is never asked again. The rollback journal is used, not the
write-ahead log: it also works on network folders and for readers without the right to write, and
a batch is written once in seconds.

Answers belong to a :class:`~analysis.asking.rows.Configuration`, whose key is a digest of
everything that an answer depends on: results of another model, method, seed, library or code are
never mixed. Outcomes belong to an answer and a :class:`~analysis.asking.rows.Scorer`, so what is
changed about scoring is computed again from the answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from analysis.asking.database import Database
from analysis.asking.rows import Configuration, Outcome, Row, Scorer, digest_of
from analysis.asking.schema import DECISIONS

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.decisions import Decision
    from analysis.asking.replay import Replay

FILE_NAME = "results.sqlite"
FACT = "fact_"
"""Begins the names of columns that hold facts of questions."""
_KEEP_FIRST = "ON CONFLICT DO NOTHING"
_KEEP_LAST = "ON CONFLICT DO UPDATE SET content = excluded.content"
_KEEP_MOST = "ON CONFLICT DO UPDATE SET questions = max(questions, excluded.questions)"

# Of several scorers of one metric the latest is shown, unless one is asked for.
_ROWS = """
    WITH chosen AS (
        SELECT key, metric, max(number) AS number FROM outcomes JOIN scorers USING (scorer)
        WHERE :scorers IS NULL OR scorer IN (SELECT value FROM json_each(:scorers))
        GROUP BY key, metric),
    scored AS (
        SELECT outcomes.key, item, scorers.metric, reference, score, outcome
        FROM chosen JOIN scorers USING (number) JOIN outcomes
        ON outcomes.key = chosen.key AND outcomes.scorer = scorers.scorer)
    SELECT configurations.*, answers.*, metric, coalesce(reference, '[]') AS reference, score,
        coalesce(outcome, '{}') AS outcome
    FROM configurations JOIN answers USING (key) LEFT JOIN scored USING (key, item)
    WHERE :keys IS NULL OR key IN (SELECT value FROM json_each(:keys))
    ORDER BY task, parameters, seed, key, metric, item"""


class Store:
    """Results in a folder.

    Several processes may read and write at once. Use it as a context manager, or close it.

    Args:
        folder: Where ``results.sqlite`` lies or will lie; None keeps results in memory.
        read_only: Don't create or change anything.
        decisions: Also keep how sure each answer was (:mod:`analysis.asking.decisions`).

    Attributes:
        replay: Where rows that ship take the place of asking, see :meth:`over`.

    Raises:
        StoreError: The folder can't be written, or the file is damaged or not of this format.
    """

    def __init__(
        self, folder: str | Path | None, *, read_only: bool = False, decisions: bool = False
    ) -> None:
        self.path = Path(folder) / FILE_NAME if folder is not None else None
        self.keeps_decisions = decisions
        self.replay: Replay | None = None
        self._database = Database(self.path, read_only)
        if decisions:
            with self._database.transaction():
                self._database.execute(DECISIONS)

    @classmethod
    def of_bytes(cls, content: bytes) -> Self:
        """A store in memory that holds what a file of results did.

        Raises:
            StoreError: The bytes are not those of such a file.
        """
        store = cls(None)
        store._database.fill(content)
        return store

    @contextmanager
    def over(self, replay: Replay) -> Iterator[None]:
        """Let rows that ship take the place of asking while the block runs."""
        self.replay = replay
        try:
            yield
        finally:
            self.replay = None

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
        """Items of a configuration that are answered."""
        _, rows = self._database.query("SELECT item FROM answers WHERE key = :key", {"key": key})
        return frozenset(int(item) for (item,) in rows)

    def configurations(self) -> dict[str, Configuration]:
        """What the answers belong to, by key."""
        names = [field.name for field in fields(Configuration)]
        _, rows = self._database.query(f"SELECT key, {', '.join(names)} FROM configurations")
        return {str(key): Configuration(*values) for key, *values in rows}

    def gaps(self, key: str) -> dict[int, float]:
        """How sure the answers of a configuration were, by item."""
        _, rows = self._database.query(
            "SELECT item, gap FROM decisions WHERE key = :key", {"key": key}
        )
        return {int(item): float(gap) for item, gap in rows}

    def unscored(self, key: str, scorer: Scorer) -> list[tuple[int, str]]:
        """Items of a configuration that a scorer has not seen, with their answers."""
        _, rows = self._database.query(
            """SELECT item, answer FROM answers WHERE key = :key AND item NOT IN
            (SELECT item FROM outcomes WHERE key = :key AND scorer = :scorer) ORDER BY item""",
            {"key": key, "scorer": scorer.key},
        )
        return [(int(item), str(answer)) for item, answer in rows]

    def add(
        self,
        configuration: Configuration,
        rows: Sequence[Row],
        scorer: Scorer | None = None,
        outcomes: Sequence[Outcome] = (),
        decisions: Sequence[Decision] = (),
    ) -> None:
        """Store answers, what a scorer made of them and how sure they were, all or none.

        What is there already stays as it is.

        Raises:
            StoreError: They can't be written; nothing of what was stored before is lost.
        """
        key, insert = configuration.key, self._database.insert
        with self._database.transaction():
            insert("configurations", [(key, *asdict(configuration).values())], _KEEP_FIRST)
            insert("answers", [(key, *row.values()) for row in rows], _KEEP_FIRST)
            made = [(key, one.item, *one.values()) for one in decisions]
            insert("decisions", made, _KEEP_FIRST)
            if scorer is not None:
                self._insert_outcomes(key, scorer, outcomes)

    def score(self, key: str, scorer: Scorer, outcomes: Sequence[Outcome]) -> None:
        """Store what a scorer made of answers that are there, all or none.

        Raises:
            StoreError: They can't be written, or there is no such answer.
        """
        with self._database.transaction():
            self._insert_outcomes(key, scorer, outcomes)

    def _insert_outcomes(self, key: str, scorer: Scorer, outcomes: Sequence[Outcome]) -> None:
        name = scorer.key
        self._database.insert("scorers", [(None, name, *asdict(scorer).values())], _KEEP_FIRST)
        made = [(key, one.item, name, *one.values()) for one in outcomes]
        self._database.insert("outcomes", made, _KEEP_FIRST)

    def note_asked(self, asked: Iterable[tuple[str, str, str, str, int]]) -> None:
        """Remember what a command calls its configurations, and how many questions each has.

        Args:
            asked: Key, label, protocol, task and number of questions of each.
        """
        with self._database.transaction():
            self._database.insert("asked", list(asked), _KEEP_MOST)

    def asked(self) -> pd.DataFrame:
        """What commands asked for.

        Returns:
            Columns key, label, protocol, task, questions, answered (how many are stored) and reason
            (why it was refused, else None).
        """
        import pandas as pd

        columns, rows = self._database.query(
            """SELECT asked.*, count(answers.item) AS answered, reason
            FROM asked LEFT JOIN answers USING (key) LEFT JOIN refusals USING (key)
            GROUP BY key, label ORDER BY asked.rowid"""
        )
        return pd.DataFrame(rows, columns=columns)

    def note_refusal(self, key: str, reason: str) -> None:
        """Remember why a method can't be used as a configuration says."""
        with self._database.transaction():
            self._database.insert("refusals", [(key, reason)], _KEEP_FIRST)

    def refusal(self, key: str) -> str | None:
        """Why a configuration was refused, None if it was not."""
        return self._text("SELECT reason FROM refusals WHERE key = :key", key)

    def note_model(self, identity: str, description: str) -> None:
        """Remember what is known of a model, see :mod:`analysis.asking.opening`."""
        with self._database.transaction():
            self._database.insert("models", [(identity, description)], _KEEP_FIRST)

    def model(self, identity: str) -> str | None:
        """What is known of a model, None if nothing is."""
        return self._text("SELECT description FROM models WHERE identity = :key", identity)

    def _text(self, statement: str, key: str) -> str | None:
        _, rows = self._database.query(statement, {"key": key})
        return str(rows[0][0]) if rows else None

    def rows(
        self, keys: Iterable[str] | None = None, scorers: Iterable[Scorer] | None = None
    ) -> pd.DataFrame:
        """Rows of some configurations (default: all) with what they belong to.

        Args:
            keys: Of the configurations.
            scorers: Whose outcomes are shown; by default the latest of each metric.

        Returns:
            One row per answer and metric, the columns of the configuration, the answer and the
            outcome, and one column per fact of the questions, its name after :data:`FACT`.
            ``reference`` and ``warnings`` are lists; ``outcome`` is a dictionary;
            ``kv_share`` and ``token_share`` are what was held and processed, as shares of the
            uncompressed run. An answer without an outcome has no metric and no score.
        """
        import pandas as pd

        wanted = None if scorers is None else [scorer.key for scorer in scorers]
        columns, rows = self._database.query(
            _ROWS,
            {
                "keys": None if keys is None else json.dumps(sorted(set(keys))),
                "scorers": None if wanted is None else json.dumps(wanted),
            },
        )
        frame = pd.DataFrame(rows, columns=columns)
        frame = frame.loc[:, ~frame.columns.duplicated()]
        frame = frame.astype({"score": float, "requested_retention": float})
        for column in ("warnings", "reference", "outcome"):
            frame[column] = [json.loads(text) for text in frame[column]]
        facts = pd.DataFrame([json.loads(text) for text in frame.pop("facts")], index=frame.index)
        frame = frame.join(facts.add_prefix(FACT))
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
        row = (key, study, json.dumps(configuration, sort_keys=True), json.dumps(content))
        with self._database.transaction():
            self._database.insert("frames", [row], _KEEP_LAST)

    def load_frame(self, study: str, configuration: Mapping[str, Any]) -> pd.DataFrame | None:
        """The table of a study and configuration, None if there is none."""
        import pandas as pd

        key = digest_of({"study": study, **configuration})
        text = self._text("SELECT content FROM frames WHERE key = :key", key)
        if text is None:
            return None
        content = json.loads(text)
        frame = pd.DataFrame(content["data"], columns=content["columns"])
        return frame.astype(dict(zip(content["columns"], content["dtypes"], strict=True)))
