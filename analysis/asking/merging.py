"""Join stores that were filled apart: parts of one run, or runs of several machines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from analysis.asking.database import Database
from analysis.asking.store import FILE_NAME
from lightkv.errors import InputError, InvalidValueError, StoreError

Twins = Literal["refuse", "first", "both"]
"""What becomes of answers that differ only in code, libraries or arithmetic: refuse to merge, take
those of the store that is named first, or keep both apart."""

_SAME: Final = (
    *("fingerprint", "parameters", "task", "task_fingerprint", "protocol", "seed"),
    "max_new_tokens",
)
_DIFFER: Final = ("revision", "versions", "device", "dtype", "attention")

_CLASH: Final = """
    SELECT task, parameters, item, theirs.answer, ours.answer
    FROM other.answers AS theirs JOIN main.answers AS ours USING (key, item)
    JOIN main.configurations USING (key)
    WHERE theirs.answer IS NOT ours.answer OR theirs.question IS NOT ours.question
        OR theirs.kv_bytes IS NOT ours.kv_bytes OR theirs.token_layers IS NOT ours.token_layers
    LIMIT 1"""
_OUTCOME_CLASH: Final = """
    SELECT metric, item, theirs.score, ours.score
    FROM other.outcomes AS theirs JOIN main.outcomes AS ours USING (key, item, scorer)
    JOIN main.scorers USING (scorer)
    WHERE theirs.score IS NOT ours.score OR theirs.outcome IS NOT ours.outcome LIMIT 1"""
# Two keys are twins if neither store has them both.
_TWINS: Final = f"""
    SELECT theirs.key AS theirs, ours.key AS ours FROM other.configurations AS theirs
    JOIN main.configurations AS ours USING ({", ".join(_SAME)})
    WHERE theirs.key NOT IN (SELECT key FROM main.configurations)
        AND ours.key NOT IN (SELECT key FROM other.configurations)"""
_COPIES: Final = (
    "INSERT INTO main.configurations SELECT * FROM other.configurations WHERE key NOT IN "
    "(SELECT key FROM temp.left_out) ON CONFLICT DO NOTHING",
    "INSERT INTO main.answers SELECT * FROM other.answers WHERE key NOT IN "
    "(SELECT key FROM temp.left_out) ON CONFLICT DO NOTHING",
    "INSERT INTO main.scorers (scorer, metric, truth, code, libraries) SELECT scorer, metric, "
    "truth, code, libraries FROM other.scorers WHERE true ORDER BY number ON CONFLICT DO NOTHING",
    "INSERT INTO main.outcomes SELECT * FROM other.outcomes WHERE key NOT IN "
    "(SELECT key FROM temp.left_out) ON CONFLICT DO NOTHING",
    "INSERT INTO main.asked SELECT * FROM other.asked WHERE key NOT IN "
    "(SELECT key FROM temp.left_out) ON CONFLICT DO UPDATE SET "
    "questions = max(questions, excluded.questions)",
    "INSERT INTO main.refusals SELECT * FROM other.refusals WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO main.models SELECT * FROM other.models WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO main.frames SELECT * FROM other.frames WHERE true ON CONFLICT DO NOTHING",
)


@dataclass(frozen=True)
class Merged:
    """What merging one store added.

    Attributes:
        folder: The store.
        answers: How many of its answers were new.
        left_out: How many of its configurations gave way to twins.
    """

    folder: Path
    answers: int
    left_out: int


def merge(stores: Sequence[str | Path], out: str | Path, twins: Twins = "refuse") -> list[Merged]:
    """Add what several stores hold to one, in which the same answers are held once.

    Every store is checked before anything is written, and each is added whole or not at all.
    Merging the same stores again adds nothing.

    Args:
        stores: Folders.
        out: Folder of the store that takes them all; it may hold results already, which then count
            as the first store.
        twins: See :data:`Twins`.

    Raises:
        InputError: No store is given, one is given twice, or ``out`` is one of them.
        InvalidValueError: ``twins`` is unknown.
        StoreError: A store can't be read, is of another format, or holds another answer to the
            same question of the same configuration; or there are twins.
    """
    if twins not in get_args(Twins):
        raise InvalidValueError("twins", twins, ", ".join(get_args(Twins)))
    folders = [Path(store) for store in stores]
    resolved = [folder.resolve() for folder in folders]
    if not folders:
        raise InputError("no store to merge; give at least one")
    if len(set(resolved)) < len(resolved) or Path(out).resolve() in resolved:
        raise InputError("each store can be merged once, and not into itself")
    for folder in folders:
        _open(folder).close()
    with closing(Database(Path(out) / FILE_NAME, read_only=False)) as target:
        return [_add(folder, target, twins) for folder in folders]


def _open(folder: Path) -> Database:
    """A store, read only, unless what was being written when a process was killed must be undone.

    Raises:
        StoreError: It can't be read, or holds no results of this format.
    """
    file = folder / FILE_NAME
    unfinished = file.with_name(f"{FILE_NAME}-journal").is_file()
    return Database(file, read_only=not unfinished)


def _add(folder: Path, target: Database, twins: Twins) -> Merged:
    with target.attached(folder / FILE_NAME), target.transaction():
        _refuse_clashes(folder, target)
        pairs = target.query(_TWINS)[1]
        if pairs and twins == "refuse":
            raise StoreError(_twin_advice(folder, target, *map(str, pairs[0])))
        given_way = {(theirs,) for theirs, _ in pairs} if twins == "first" else set()
        target.execute("CREATE TEMP TABLE left_out (key TEXT PRIMARY KEY)")
        target.insert("temp.left_out", sorted(given_way), "")
        before = target.query("SELECT count(*) FROM main.answers")[1][0][0]
        for statement in _COPIES:
            target.execute(statement)
        after = target.query("SELECT count(*) FROM main.answers")[1][0][0]
        target.execute("DROP TABLE temp.left_out")
        return Merged(folder, int(after) - int(before), len(given_way))


def _refuse_clashes(folder: Path, target: Database) -> None:
    """Raise where two stores say different things of one answer."""
    for task, parameters, item, theirs, ours in target.query(_CLASH)[1]:
        raise StoreError(
            f"{folder} and the stores before it hold different answers or sizes for question "
            f"{item} of {task} under {parameters} ({theirs!r}, {ours!r}), though everything that "
            "they depend on is said to be equal: merge one of them only"
        )
    for metric, item, theirs, ours in target.query(_OUTCOME_CLASH)[1]:
        raise StoreError(
            f"{folder} and the stores before it hold different outcomes of {metric} for question "
            f"{item} ({theirs}, {ours}), though answer and metric are equal: merge one of them only"
        )


def _twin_advice(folder: Path, target: Database, theirs: str, ours: str) -> str:
    columns = ", ".join(("task", "parameters", *_DIFFER))
    pick = f"SELECT {columns} FROM {{}}.configurations WHERE key = :key"
    names, rows = target.query(pick.format("other"), {"key": theirs})
    there = dict(zip(names, rows[0], strict=True))
    here = dict(zip(names, target.query(pick.format("main"), {"key": ours})[1][0], strict=True))
    differing = [
        f"{name} {there[name]} and {here[name]}" for name in _DIFFER if there[name] != here[name]
    ]
    return (
        f"{folder} answers the same questions of {there['task']} under {there['parameters']} as a "
        f"store before it, with {'; '.join(differing)}: --twins first takes those of the store "
        "that is named first, --twins both keeps them apart"
    )
