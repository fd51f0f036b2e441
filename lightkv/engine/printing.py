"""Records in a few lines of text, or as a table of their layers."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from lightkv.contract.layout import TokenKind

if TYPE_CHECKING:
    import pandas as pd

    from lightkv.engine.record import RunRecord

WIDTH: Final = 100
"""Columns of a line."""

RUNS: Final = 4
"""A line names up to this many runs of equal layers; with more it lists every layer."""

_KINDS: Final = {
    "system": TokenKind.SYSTEM,
    "vision": TokenKind.VISION,
    "text": TokenKind.TEXT,
    "separators": TokenKind.SEPARATOR,
}


def in_words(record: RunRecord) -> str:
    """Method, share held, prompt, and what each layer processed and holds."""
    lines = [
        *_about_all(record),
        _line("processed", _by_layer([layer.length for layer in record.layers])),
        _line("entries", _by_layer([layer.entries for layer in record.layers])),
    ]
    return "\n".join(lines)


def as_table(record: RunRecord) -> pd.DataFrame:
    """One row per layer: tokens that it processed, and entries that it holds, by kind of token.

    Where KV heads hold different entries, numbers are means over them. An entry of merged tokens
    counts once, as the token in whose place it stands.
    """
    import pandas as pd

    kind = record.layout.kind[0]
    kinds = {name: value for name, value in _KINDS.items() if bool((kind == value).any())}
    rows = []
    for layer in record.layers:
        kept = layer.kept.view(-1, layer.kept.shape[-1])  # (K,) or (G, K) -> (G, K)
        held = kind[kept.clamp_min(0)].where(kept >= 0, int(TokenKind.PADDING))
        counts = {name: float((held == value).sum()) / len(kept) for name, value in kinds.items()}
        rows.append(
            {
                "layer": layer.layer,
                "processed": layer.length,
                "entries": layer.entries,
                **counts,
                "asked for": layer.requested,
            }
        )
    return pd.DataFrame(rows).set_index("layer")


def as_html(record: RunRecord) -> str:
    """The lines that are about all layers, then the table."""
    head = "\n".join(_about_all(record))
    table = as_table(record).to_html(border=0, float_format=_number)
    return f"<div><pre>{escape(head)}</pre>{table}</div>"


def _about_all(record: RunRecord) -> list[str]:
    """What is true of all layers together."""
    share = f"{record.achieved_retention:.1%} of the full cache"
    asked = record.requested_retention
    if asked is not None:
        share += f" ({asked:.1%} of the entries asked for)"
    return [
        _line("method", record.method),
        _line("held", f"{share}, {record.kv_bytes:,} of {record.full_kv_bytes:,} bytes"),
        _line("prompt", _prompt(record)),
        *(_line("note", warning) for warning in record.warnings),
    ]


def _line(name: str, words: str) -> str:
    return textwrap.fill(
        words,
        WIDTH,
        initial_indent=f"{name:<10} ",
        subsequent_indent=" " * 11,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _prompt(record: RunRecord) -> str:
    kind = record.layout.kind[0]
    parts = [
        f"{int((kind == value).sum())} {name}"
        for name, value in _KINDS.items()
        if bool((kind == value).any())
    ]
    return f"{record.layout.length} tokens: {', '.join(parts)}"


def _by_layer(numbers: Sequence[float]) -> str:
    """Numbers of all layers; equal neighbours together if that leaves few."""
    runs, first = [], 0
    for number, group in itertools.groupby(numbers):
        last = first + len(list(group)) - 1
        where = f"layer {first}" if first == last else f"layers {first} to {last}"
        runs.append(f"{_number(number)} in {where}")
        first = last + 1
    if len(runs) <= RUNS:
        return ", ".join(runs)
    listed = " ".join(map(_number, numbers))
    return f"{listed} in layers 0 to {len(numbers) - 1}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
