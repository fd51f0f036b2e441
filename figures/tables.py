"""Tables as they are shown: numbers as text, two-level headings, HTML for screen readers too."""

from __future__ import annotations

import html
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

JOIN: Final = " | "
"""Between the levels of a heading where a table has one heading row only (CSV)."""

MISSING: Final = "–"


def percent(value: float, low: float | None = None, high: float | None = None) -> str:
    """A share in percent, with its interval if there is one: ``37.5 [25.0, 50.0]``."""
    if value != value:
        return MISSING
    text = f"{100 * value:.1f}"
    if low is None or high is None or low != low or high != high:
        return text
    return f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def cell(value: Any) -> str:
    """A cell's text: floats to three significant digits at least, a dash for what is missing."""
    if value is None or (isinstance(value, float) and value != value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with every cell as text and one heading row, as it is written to CSV."""
    import pandas as pd

    shown = flat(frame)
    return pd.DataFrame({name: shown[name].map(cell) for name in shown.columns})


def read(path: Path) -> pd.DataFrame:
    """A table that was written as text, with the levels of its headings."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if any(JOIN in name for name in frame.columns):
        pairs = [name.split(JOIN, 1) if JOIN in name else (name, "") for name in frame.columns]
        frame.columns = pd.MultiIndex.from_tuples([tuple(pair) for pair in pairs])
    return frame


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with one heading row."""
    import pandas as pd

    if frame.columns.nlevels == 1:
        return frame
    plain = frame.copy()
    plain.columns = pd.Index([JOIN.join(filter(None, map(str, c))) for c in frame.columns])
    return plain


def to_html(frame: pd.DataFrame, caption: str) -> str:
    """The table as HTML, with a caption and scoped headings; the first column heads its rows."""
    levels = [c if isinstance(c, tuple) else (c,) for c in frame.columns]
    depth = frame.columns.nlevels
    lines = [f"<table><caption>{html.escape(caption)}</caption><thead>"]
    for level in range(depth):
        lines.append(f"<tr>{''.join(_headings(levels, level))}</tr>")
    lines.append("</thead><tbody>")
    for row in frame.itertuples(index=False, name=None):
        first, rest = row[0], row[1:]
        cells = "".join(f"<td>{html.escape(cell(value))}</td>" for value in rest)
        lines.append(f'<tr><th scope="row">{html.escape(cell(first))}</th>{cells}</tr>')
    lines.append("</tbody></table>")
    return "\n".join(lines)


def _headings(columns: list[tuple[Any, ...]], level: int) -> list[str]:
    """Headings of one level; neighbours under the same upper heading share a cell."""
    cells = []
    for key, group in groupby(columns, key=lambda column: column[: level + 1]):
        span = len(list(group))
        scope = "colgroup" if span > 1 else "col"
        wide = f' colspan="{span}"' if span > 1 else ""
        cells.append(f'<th scope="{scope}"{wide}>{html.escape(str(key[-1]))}</th>')
    return cells
