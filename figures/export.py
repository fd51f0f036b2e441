"""Write an artefact: PNG, PDF, the plotted data, tables, verdicts and where it all came from.

Every file is written beside its place and renamed into it, so that a file that exists is whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analysis.outputs import replacing, write_text
from analysis.provenance import provenance
from figures.style import styled
from figures.tables import as_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from figures.contract import Artefact

RECORD: Final = "record.json"
"""Name of the file that says what an artefact's folder holds."""

PLOTTED: Final = "plotted.csv"
"""The numbers that the figure draws."""

ROWS: Final = "rows.csv"
"""What the study returned."""

TABLE: Final = "table.csv"
"""Ours beside the paper's, as shown."""

PAPER: Final = "paper.csv"
"""The paper's printed numbers."""

DPI: Final = 220

_WITHOUT_TIME: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": "lightkv"},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


def _sorted(value: object) -> list[Any]:
    """A set as a list."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    # What has no order of its own is written sorted.
    text = json.dumps(content, indent=2, ensure_ascii=False, default=_sorted)
    write_text(path, text + "\n")


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as CSV atomically, without its index."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def savefig(figure: Figure, stem: Path) -> None:
    """Write ``stem.png``, ``stem.pdf`` and ``stem.svg`` atomically.

    The files hold no time of writing, so equal drawings are equal files.
    """
    with styled():
        for kind, metadata in _WITHOUT_TIME.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
            with replacing(stem.with_suffix(f".{kind}")) as file:
                file.write(buffer.getvalue())


def publish(
    artefact: Artefact,
    frame: pd.DataFrame,
    out: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    drawing: Figure | None = None,
    rows: Mapping[str, Any] | None = None,
) -> Path:
    """Write everything about an artefact into ``out/<id>`` and return that folder.

    Args:
        artefact: What to write.
        frame: What its study returned.
        out: Parent folder.
        parameters: What the study was called with, for the record.
        drawing: The figure, if it is drawn already.
        rows: Where the rows come from, for the record.
    """
    folder = Path(out) / artefact.id
    savefig(drawing or artefact.figure(frame), folder / artefact.id)
    write_frame(folder / PLOTTED, artefact.plotted(frame))
    write_frame(folder / ROWS, frame)
    write_frame(folder / TABLE, as_text(artefact.table(frame)))
    paper = artefact.paper_numbers()
    if paper is not None:
        write_frame(folder / PAPER, paper)
    write_json(
        folder / RECORD,
        {
            "id": artefact.id,
            "verdicts": [
                {
                    "sentence": one.claim.sentence,
                    "source": one.claim.source,
                    "rule": one.claim.rule,
                    "main": one.claim.main,
                    **asdict(one.verdict),
                    "p": one.verdict.p,
                }
                for one in artefact.judge(frame)
            ],
            "parameters": dict(parameters or {}),
            "rows": dict(rows or {}),
            "provenance": provenance(),
        },
    )
    return folder
