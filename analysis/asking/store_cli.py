"""``lightkv merge`` and ``lightkv summary``: stores without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.options import table

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.merging import Twins

_FOLDER = click.Path(path_type=Path)


@click.command("merge")
@click.argument("stores", nargs=-1, required=True, type=_FOLDER)
@click.option("--out", required=True, type=_FOLDER, help="Folder that takes all of them.")
@click.option(
    "--twins",
    type=click.Choice(["refuse", "first", "both"]),
    default="refuse",
    show_default=True,
    help="Where two stores answer the same questions under other code, libraries, dtype or device: "
    "refuse, take those of the store named first (what --out holds already comes before), or keep "
    "both, which summary shows apart.",
)
def merge_command(stores: tuple[Path, ...], out: Path, twins: Twins) -> None:
    """Join STORES, folders that lightkv evaluate --out filled, into one.

    Every answer is held once; merging again adds only what is new.
    """
    from analysis.asking.merging import merge

    for merged in merge(stores, out, twins):
        gave_way = f", {merged.left_out} twins left out" if merged.left_out else ""
        click.echo(f"{merged.folder}: {merged.answers} new answers{gave_way}")


@click.command("summary")
@click.argument("store", type=_FOLDER)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write the table as CSV as well.",
)
@click.option(
    "--beside",
    "control",
    default=None,
    help="A control asked at several budgets (downsample, uniform-grid): print, and write, scores "
    "less its scores with as many entries, as many tokens processed, and as much time; the hard "
    "group, which it gets wrong; and loyalty, the share of answers that are the full cache's.",
)
def summary_command(store: Path, out: Path | None, control: str | None) -> None:
    """Print scores with 95 % intervals of what STORE holds; no model is needed."""
    from analysis.asking.store import Store
    from analysis.asking.stored import stored_beside, stored_rows, stored_summary

    with Store(store, read_only=True) as opened:
        rows, asked = stored_rows(opened), opened.asked()
    summary = stored_summary(rows, asked)
    compared = None if control is None else stored_beside(rows, control)
    click.echo(table(summary.drop(columns=["interval", "kv_bytes", "requested_retention"])))
    if compared is not None:
        click.echo(f"\nbeside {control}\n{table(compared.drop(columns='n'))}")
        summary = summary.merge(compared.drop(columns="n"), how="left")
    for line in _remarks(summary, rows, asked):
        click.echo(line, err=True)
    if out is not None:
        summary.to_csv(out, index=False, float_format="%.6g")


def _remarks(summary: pd.DataFrame, rows: pd.DataFrame, asked: pd.DataFrame) -> list[str]:
    """What the table does not show."""
    lines = []
    partial = int((summary["n"] < summary["of"]).sum())
    if partial:
        lines.append(f"{partial} of {len(summary)} rows are parts: not all questions are answered")
    unscored = int(rows["metric"].isna().sum())
    if unscored:
        lines.append(f"{unscored} answers are not scored; the command that asked them does it")
    refused = asked[asked["reason"].notna()]
    lines += [
        f"left out: {one.protocol} {one.task} {one.label}: {one.reason}"
        for one in refused.itertuples()
    ]
    return lines
