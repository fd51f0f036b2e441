"""The papers' printed numbers: one table an artefact, one row a printed number.

Transcribed from the papers' texts. ``NOTES.md`` beside this file says what the columns mean, which
cells are in doubt and where the papers contradict themselves.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from lightkv.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

FLAGS = (
    "EMPTY",
    "RESOLVED",
    "CHECK",
    "ANOMALY",
    "SETTING_UNSURE",
    "MODEL_NOT_NAMED",
    "OOM",
    "NOT_REPORTED",
)
"""What a row's note may start with; ``NOTES.md`` explains each."""

_PREFIXES = {"lightkv": "L-T", "tgvkv": "T-T"}


def artefacts() -> tuple[str, ...]:
    """Ids of all tables with numbers: LightKV's ``L-T1`` ... and TGV-KV's ``T-T1`` ..."""
    return tuple(_entries())


def describe(artefact_id: str) -> dict[str, Any]:
    """A table's title, models, methods, settings, columns and counts.

    Raises:
        UnknownNameError: No table has this id.
    """
    entries = _entries()
    if artefact_id not in entries:
        raise UnknownNameError("artefact with paper numbers", artefact_id, entries)
    return entries[artefact_id]


def numbers(artefact_id: str) -> pd.DataFrame:
    """A table's printed numbers.

    Returns:
        One row a printed number with the columns ``paper``, ``artefact``, ``model``, ``method``,
        ``setting``, ``benchmark``, ``metric``, ``value`` (float, NaN where there is none),
        ``unit``, ``note``, ``printed`` (the digits as printed, with trailing zeros), ``flag`` (one
        of :data:`FLAGS` or empty) and ``flagged`` (whether there is one).

    Raises:
        UnknownNameError: No table has this id.
    """
    import pandas as pd

    file = resources.files(__name__) / describe(artefact_id)["file"]
    with file.open(encoding="utf-8") as text:
        frame = pd.read_csv(text, dtype=str, keep_default_na=False)
    frame["printed"] = frame["value"]
    frame["value"] = pd.to_numeric(frame["value"]).astype(float)
    frame["flag"] = frame["note"].str.extract(rf"^({'|'.join(FLAGS)})\b", expand=False).fillna("")
    frame["flagged"] = frame["flag"] != ""
    return frame


def _entries() -> dict[str, dict[str, Any]]:
    """The index by artefact id."""
    raw = json.loads((resources.files(__name__) / "index.json").read_text(encoding="utf-8"))
    entries = {}
    for key, entry in raw.items():
        paper, number = key.split("_table")
        entries[_PREFIXES[paper] + number] = entry
    return entries
