"""Rows and summaries of a store by itself, labelled as the commands that filled it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.scoring.beside import GROUP, beside
from analysis.scoring.summaries import CELL, summarise
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store

_TOLD_APART: Final = (
    *("model", "fingerprint", "task_fingerprint", "parameters", "seed", "max_new_tokens"),
    *("dtype", "attention", "device", "revision", "versions"),
)
"""Columns that are shown where rows of one label differ in them."""


def stored_rows(store: Store) -> pd.DataFrame:
    """All rows of a store, once per label that a command gave them, the label in ``method``."""
    rows, asked = store.rows(), store.asked()
    labelled = rows.merge(asked[["key", "label"]], on="key", how="left")
    labelled["method"] = labelled["label"].fillna(labelled["method"])
    return labelled.drop(columns="label")


def stored_summary(rows: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """One row per protocol, task, method and metric, as
    :func:`~analysis.scoring.summaries.summarise` gives it.

    Answers under one label that differ in model, seed, code or arithmetic are not mixed: the
    columns in which they do are shown.

    Args:
        rows: Of :func:`stored_rows`.
        asked: Of :meth:`~analysis.asking.store.Store.asked`.

    Returns:
        Those columns, and ``of``: how many questions were to be asked.

    Raises:
        InputError: No answer is scored.
    """
    import pandas as pd

    scored = rows[rows["metric"].notna()]
    if not len(scored):
        raise InputError("the store holds no scored answer; fill it with lightkv evaluate --out")
    by = [*CELL, *_differing(scored)]
    summary = pd.concat([summarise(one, by) for _, one in scored.groupby("metric", sort=False)])
    questions = asked.groupby("key")["questions"].max()
    wanted = scored.assign(of=scored["key"].map(questions)).groupby(by)["of"].max()
    named = summary.merge(wanted.reset_index(), on=by, how="left")
    return named[[*by, "metric", "n", "of", *list(summary.columns)[len(by) + 2 :]]]


def stored_beside(rows: pd.DataFrame, control: str) -> pd.DataFrame:
    """Methods beside the full cache and a control, as :func:`~analysis.scoring.beside.beside` has
    it; models, seeds, code and arithmetic that differ are not mixed.

    Args:
        rows: Of :func:`stored_rows`.
        control: Name of the control.

    Raises:
        InputError: No answer is scored.
        UnknownNameError: The control was not asked.
    """
    scored = rows[rows["metric"].notna()]
    if not len(scored):
        raise InputError("the store holds no scored answer; fill it with lightkv evaluate --out")
    # Parameters are those of each method.
    apart = [name for name in _differing(scored) if name != "parameters"]
    return beside(scored, control, by=[*GROUP, "metric", *apart])


def _differing(scored: pd.DataFrame) -> list[str]:
    """Columns in which answers under one label differ."""
    cells = scored.groupby([*CELL, "metric"], sort=False)
    return [name for name in _TOLD_APART if (cells[name].nunique() > 1).any()]
