"""The file of rows that ships with the package: read, made from a store, added to another one."""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Final

from analysis.asking.database import Database
from analysis.asking.replay import Shipped
from analysis.asking.schema import DECISIONS
from analysis.asking.store import FILE_NAME, Store
from lightkv.errors import StoreError

PLACE: Final = ("stored", "results", f"{FILE_NAME}.xz")
"""Where the file lies in this package."""

_WANTED: Final = "key IN (SELECT key FROM temp.wanted)"
_COPIES: Final = (
    f"INSERT INTO main.configurations SELECT * FROM other.configurations WHERE {_WANTED} "
    "ORDER BY task, protocol, parameters, seed ON CONFLICT DO NOTHING",
    "INSERT INTO main.answers SELECT key, item, identity, picture, question, answer, kv_bytes, "
    "full_kv_bytes, requested_retention, achieved_retention, token_layers, full_token_layers, "
    "generated_tokens, round(seconds, 4), warnings, facts "
    f"FROM other.answers WHERE {_WANTED} ORDER BY key, item ON CONFLICT DO NOTHING",
    f"INSERT INTO main.decisions SELECT * FROM other.decisions WHERE {_WANTED} "
    "ORDER BY key, item ON CONFLICT DO NOTHING",
    "INSERT INTO main.scorers (scorer, metric, truth, code, libraries) SELECT scorer, metric, "
    "truth, code, libraries FROM other.scorers WHERE true ORDER BY number ON CONFLICT DO NOTHING",
    f"INSERT INTO main.outcomes SELECT * FROM other.outcomes WHERE {_WANTED} "
    "ORDER BY key, item ON CONFLICT DO NOTHING",
)


def packaged() -> Path:
    """The file in this package, whether it is there or not."""
    return Path(str(resources.files("analysis").joinpath(*PLACE)))


def packed_rows(file: Path | None = None) -> Shipped | None:
    """The rows that ship, None if there are none.

    Args:
        file: Where they lie, None for the file in this package.

    Raises:
        StoreError: The file can't be read.
    """
    content = _content(packaged() if file is None else file)
    return None if content is None else Shipped(Store.of_bytes(content))


def _content(file: Path) -> bytes | None:
    if not file.is_file():
        return None
    try:
        return lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise StoreError(f"{file} can't be read as packed rows: {error}") from error


def pack(folder: Path, keys: Iterable[str]) -> bytes:
    """A store's rows of some configurations as the bytes of a packed file.

    Equal rows make equal bytes; seconds are kept to a tenth of a millisecond.

    Args:
        folder: Of the store.
        keys: Of the configurations.

    Raises:
        StoreError: The store can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="lightkv-") as place:
        file = Path(place) / FILE_NAME
        _copy(folder / FILE_NAME, file, keys)
        return lzma.compress(file.read_bytes(), preset=9)


def unpack(packed: Path, folder: Path) -> None:
    """Add the rows of a packed file to a store, so that building them goes on from there.

    Raises:
        StoreError: The file can't be read, or the store can't be written.
    """
    content = _content(packed)
    if content is None:
        return
    with tempfile.TemporaryDirectory(prefix="lightkv-") as place:
        file = Path(place) / FILE_NAME
        file.write_bytes(content)
        with Store(place, read_only=True) as store:
            keys = list(store.configurations())
        _copy(file, folder / FILE_NAME, keys)


def _copy(source: Path, target: Path, keys: Iterable[str]) -> None:
    """Copy rows of some configurations from one file of results to another."""
    with (
        closing(Database(target, read_only=False)) as database,
        database.attached(source),
        database.transaction(),
    ):
        database.execute(DECISIONS)
        database.execute("CREATE TEMP TABLE wanted (key TEXT PRIMARY KEY)")
        database.insert("temp.wanted", [(key,) for key in sorted(set(keys))], "")
        for statement in _COPIES:
            database.execute(statement)
        database.execute("DROP TABLE temp.wanted")
