"""A grid of simulated cells, written as it goes: stopped anywhere, the same command goes on.

A cell's random numbers follow from the seed and the cell alone, so a table doesn't depend on what
was simulated before or besides.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.outputs import check_out, write_text
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    import pandas as pd

Cell = Mapping[str, Any]
Simulate = Callable[[Cell, np.random.Generator], Iterable[Mapping[str, Any]]]
Row = dict[str, str]


def simulated(
    cells: Sequence[Cell],
    simulate: Simulate,
    *,
    seed: int = 0,
    out: Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Simulate every cell that a file does not hold yet.

    Args:
        cells: What each cell is about; all have the same names.
        simulate: From a cell and its generator to rows of results; all have the same names.
        seed: Of all random numbers.
        out: A CSV file, written after every cell; None keeps the table in memory.
        progress: Show a bar.

    Returns:
        The names of the cells, "seed" and those of the rows, in the order of the cells.

    Raises:
        InvalidValueError: ``seed`` is below 0.
        InputError: The file holds another table.
        StoreError: Its folder does not exist, or it can't be written.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if seed < 0:
        raise InvalidValueError("seed", seed, "at least 0")
    check_out(out)
    named = [
        {name: _text(value) for name, value in {**cell, "seed": seed}.items()} for cell in cells
    ]
    kept, added = _read(out, named), False
    for cell, names in tqdm(
        list(zip(cells, named, strict=True)), unit="cell", disable=not progress, leave=False
    ):
        key = tuple(names.values())
        if key in kept:
            continue
        rows = simulate(cell, np.random.default_rng(_entropy(names)))
        kept[key] = [{**names, **{k: _text(v) for k, v in row.items()}} for row in rows]
        added = True
        _write(out, [row for rows in kept.values() for row in rows])
    wanted = [row for names in named for row in kept.pop(tuple(names.values()))]
    if added:
        # Cells that came to the grid later stand in their place, as in a table made at once.
        _write(out, [*wanted, *(row for rows in kept.values() for row in rows)])
    return pd.read_csv(io.StringIO(_table(wanted)), keep_default_na=True)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _entropy(names: Row) -> int:
    digest = hashlib.sha256(json.dumps(names, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _read(out: Path | None, named: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Rows of a file by cell."""
    kept: dict[tuple[str, ...], list[Row]] = {}
    if out is None or not out.exists():
        return kept
    names = list(named[0])
    try:
        with out.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{out} can't be read as CSV: {error}") from error
    if rows and list(rows[0])[: len(names)] != names:
        raise InputError(
            f"{out} holds another table, its columns are {list(rows[0])}; name another file"
        )
    for row in rows:
        kept.setdefault(tuple(row[name] for name in names), []).append(row)
    return kept


def _write(out: Path | None, rows: Sequence[Row]) -> None:
    if out is not None:
        write_text(out, _table(rows))


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
