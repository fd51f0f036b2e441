"""How an artefact looks in a notebook: words, table, figure and verdicts as one piece of HTML."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Final

from figures.tables import to_html

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from figures.contract import Artefact

_WIDTH: Final = 920
"""Pixels of a figure in a notebook, at most."""

_DPI: Final = 160


def made_html(
    artefact: Artefact, figure: Figure, table: pd.DataFrame, verdicts: pd.DataFrame
) -> str:
    """An artefact as HTML."""
    say = html.escape
    picture = base64.b64encode(png(figure, _DPI)).decode()
    return "\n".join(
        (
            f"<h2>{artefact.id} {say(artefact.title)}</h2>",
            f"<p><i>{say(artefact.source)}.</i> {say(artefact.shows)}</p>",
            f"<div style='overflow-x: auto'>{to_html(table, 'ours beside the print')}</div>",
            f"<img style='max-width: {_WIDTH}px; width: 100%' alt='{say(artefact.alt)}'"
            f" src='data:image/png;base64,{picture}'>",
            f"<p>{say(artefact.caption)}</p>",
            to_html(verdicts, "claims and verdicts"),
            f"<p><b>How to read it.</b> {say(artefact.explanation)}</p>",
        )
    )


def png(figure: Figure, dpi: int) -> bytes:
    """A figure as a PNG file without time stamp, so that equal drawings are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "lightkv"})
    return buffer.getvalue()
