"""Question rows as a file to pass on, and those that ship: every method on the embedded model."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analysis.asking.store import FACT
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = (
    "model",
    "fingerprint",
    "revision",
    "protocol",
    "task",
    "method",
    "metric",
    "seed",
    "item",
    "score",
    "kv_bytes",
    "kv_share",
    "token_share",
    "requested_retention",
    "seconds",
)
"""Columns that a file must have."""

ANSWER: Final = "answer"
"""Column that loyalty needs; files written before it was kept lack it."""

SHIPPED: Final = "every_method.csv.gz"


def write_rows(frame: pd.DataFrame, path: Path) -> None:
    """Write rows of :func:`~analysis.asking.evaluation.evaluate`, with the facts of the questions,
    as gzipped CSV."""
    # No time stamp, so that equal rows make equal files.
    packed = {"method": "gzip", "mtime": 0}
    facts = [name for name in frame.columns if name.startswith(FACT)]
    rows = frame[[*COLUMNS, ANSWER, *facts]]
    rows.to_csv(path, index=False, float_format="%.6g", compression=packed)


def read_rows(path: str | Path) -> pd.DataFrame:
    """Rows that were written by :func:`write_rows`.

    Raises:
        InputError: The file can't be read, or lacks a column.
    """
    return _read(Path(path))


def shipped_rows(fingerprint: str | None = None) -> pd.DataFrame | None:
    """The rows that ship, None if they are of another model than the one that is named."""
    rows = _read(resources.files("analysis") / "stored" / SHIPPED)
    return rows if fingerprint is None or set(rows["fingerprint"]) == {fingerprint} else None


def _read(source: Traversable) -> pd.DataFrame:
    import pandas as pd

    try:
        with source.open("rb") as file:
            columns = pd.read_csv(file, compression="gzip", nrows=0).columns
            file.seek(0)
            frame = pd.read_csv(
                file,
                compression="gzip",
                dtype={"fingerprint": str, "revision": str, ANSWER: str},
                # An answer is as it was written: it may be empty, or "NA".
                keep_default_na=False,
                na_values={name: [""] for name in columns if name != ANSWER},
            )
    except (OSError, ValueError) as error:
        raise InputError(f"{source} can't be read as gzipped CSV: {error}") from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(f"{source} lacks the columns {missing}; write it with lightkv evaluate")
    return frame
