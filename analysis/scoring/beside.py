"""Scores beside the full cache and beside a plain control that is asked at several budgets.

A method may look good because the questions are easy at its budget. So it is compared with what a
control (a smaller picture, patches at even distances) scores with as many entries, as many tokens
processed, or as much time; with what it gets right of the questions that the control gets wrong;
and with what the full cache answers, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.estimate import Estimate
from analysis.scoring.intervals import QUESTION, difference, mean
from analysis.scoring.metrics import normalise
from lightkv.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

GROUP: Final = ("protocol", "task")
EQUAL: Final = {"entries": "kv_share", "tokens": "token_share", "time": "seconds"}
"""What a control is brought to as much of, and the column whose mean tells how much that is."""

HALF: Final = 0.5
"""A question is wrong below half of the marks."""

MEASURED: Final = ("loyalty", *(f"lead_{name}" for name in EQUAL), "hard")
"""Estimates of :func:`beside`, each a column, with bounds in two more."""


def loyal(frame: pd.DataFrame, full: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``frame`` with ``loyalty``: 1 where the full cache says the same, 0 elsewhere.

    Answers are the same if they differ in case, white space and punctuation around them alone.
    Questions that the full cache was not asked have none.
    """
    keys = [name for name in QUESTION if name in frame.columns]
    said = full.drop_duplicates(keys).set_index(keys)["answer"].map(normalise)
    theirs = said.reindex(frame.set_index(keys).index).to_numpy(object)
    same = (frame["answer"].map(normalise).to_numpy(object) == theirs).astype(float)
    return frame.assign(loyalty=np.where(np.equal(theirs, theirs), same, np.nan))


def is_control(label: str, control: str) -> bool:
    """True for the control's name, with or without a share or fields."""
    return label == control or label.startswith((f"{control} ", f"{control}:"))


def at_equal(
    method_rows: pd.DataFrame, curve: Sequence[pd.DataFrame], column: str
) -> pd.DataFrame | None:
    """Scores of a control at the mean of ``column`` that ``method_rows`` has.

    Between two settings of the control each question's score is interpolated linearly. Beyond the
    most expensive setting, which may be the full cache, it stays; below the cheapest there is none.

    Args:
        method_rows: Rows of a method.
        curve: Rows of each setting of the control.
        column: What is to be equal.

    Returns:
        Rows with the columns that name a question and ``score``, or None.
    """
    reached = float(method_rows[column].mean())
    ordered = sorted(curve, key=lambda rows: float(rows[column].mean()))
    places = [float(rows[column].mean()) for rows in ordered]
    if not places or reached < places[0]:
        return None
    after = min(int(np.searchsorted(places, reached)), len(places) - 1)
    before = after if places[after] <= reached else after - 1
    weight = (reached - places[before]) / (places[after] - places[before]) if before < after else 0
    keys = [name for name in QUESTION if name in method_rows.columns]
    low, high = (ordered[place].groupby(keys)["score"].mean() for place in (before, after))
    score = low if not weight else (1 - weight) * low + weight * high
    return score.dropna().rename("score").reset_index()


def hard_group(method_rows: pd.DataFrame, control: pd.DataFrame) -> pd.DataFrame:
    """Rows of questions that the control gets wrong (below half of the marks)."""
    keys = [name for name in QUESTION if name in method_rows.columns]
    score = control.groupby(keys)["score"].mean()
    wrong = score[score < HALF].index
    return method_rows[method_rows.set_index(keys).index.isin(wrong)]


def beside(
    frame: pd.DataFrame,
    control: str | None = "downsample",
    full: str = "vanilla",
    by: Sequence[str] = GROUP,
) -> pd.DataFrame:
    """One row per group and method: loyalty, leads over the control, and the hard group.

    Args:
        frame: Rows of :func:`analysis.asking.evaluation.evaluate`; without answers there is no
            loyalty.
        control: Name of the control; its settings are all labels that begin with it. None compares
            with the full cache alone.
        full: Label of the full cache, also the most expensive setting of the control.
        by: Columns that make a group, within which methods are compared.

    Returns:
        Columns: ``by``, method, n; ``loyalty``, share of answers that are those of the full cache;
        ``lead_entries``, ``lead_tokens`` and ``lead_time``, score less that of the control with as
        many entries held, as many tokens processed or as much time a question, paired by question;
        ``hard``, score in the ``hard_n`` questions that the control's setting of the nearest number
        of entries (``nearest``) gets wrong, and ``hard_full``, what the full cache scores there.
        Estimates have 95 % intervals in columns ending in _low and _high. NaN where there is no
        number: the control was not asked in a group or takes more at its smallest setting, or a
        metric has no scores of single questions.

    Raises:
        UnknownNameError: No label is that of the control.
    """
    import pandas as pd

    labels = [str(label) for label in frame["method"].unique()]
    if control is not None and not any(is_control(label, control) for label in labels):
        raise UnknownNameError("method", control, labels)
    rows: list[dict[str, Any]] = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        methods = dict(list(group.groupby("method", sort=False)))
        rows += [
            {**dict(zip(by, key, strict=True)), "method": label}
            | _row(label, methods, control, full)
            for label in methods
            if label != full
        ]
    bounds = [f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")]
    columns = [*by, "method", "n", *bounds, "hard_n", "hard_full", "nearest"]
    return pd.DataFrame(rows, columns=columns)


def _row(
    label: Any, methods: dict[Any, pd.DataFrame], control: str | None, full: str
) -> dict[str, Any]:
    """Everything about one method of a group."""
    answers, whole = methods[label], methods.get(full)
    row: dict[str, Any] = {"n": len(answers)}
    if whole is not None and "answer" in answers.columns:
        row |= _bounds("loyalty", mean(loyal(answers, whole), "loyalty"))
    settings = {
        other: rows
        for other, rows in methods.items()
        if control is not None and is_control(str(other), control)
    }
    if not settings or label in settings or answers["score"].isna().all():
        return row
    for name, column in EQUAL.items():
        curve = [*settings.values(), *([] if whole is None else [whole])]
        other = at_equal(answers, curve, column)
        if other is not None:
            row |= _bounds(f"lead_{name}", difference(answers, other))
    return row | _in_hard_group(answers, whole, settings)


def _in_hard_group(
    answers: pd.DataFrame, whole: pd.DataFrame | None, settings: dict[Any, pd.DataFrame]
) -> dict[str, Any]:
    """What a method scores where the control of the nearest number of entries is wrong."""
    column = EQUAL["entries"]
    held = float(answers[column].mean())
    nearest = min(settings, key=lambda label: abs(float(settings[label][column].mean()) - held))
    hard = hard_group(answers, settings[nearest])
    row: dict[str, Any] = {"nearest": nearest, "hard_n": len(hard)}
    if len(hard):
        row |= _bounds("hard", mean(hard))
    if len(hard) and whole is not None:
        row["hard_full"] = mean(hard_group(whole, settings[nearest])).value
    return row


def _bounds(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
