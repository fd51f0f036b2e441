"""Simulated tables as they stand in the documentation, between markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.outputs import write_text
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A frame of texts as a markdown table."""
    rows: list[Sequence[Any]] = [list(frame.columns), ["---"] * len(frame.columns)]
    rows += frame.to_numpy().tolist()
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def section(text: str, name: str) -> str:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        InputError: The text has no such markers.
    """
    return _around(text, name)[1].strip()


def write_section(page: Path, name: str, content: str) -> None:
    """Put a table between the markers of a page.

    Raises:
        InputError: The page can't be read, or has no such markers.
        StoreError: It can't be written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page} can't be read: {error}") from error
    before, _, after = _around(text, name)
    write_text(page, f"{before}\n\n{content}\n\n{after}")


def _around(text: str, name: str) -> tuple[str, str, str]:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise InputError(f"there is no {start} ... {end} to write the table between")
    before, rest = text.split(start, 1)
    inside, after = rest.split(end, 1)
    return before + start, inside, end + after
