"""What artefacts share: labels, selections, score summaries, and points with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from figures.style import Look, canvas
from figures.tables import MISSING, percent
from figures.verdicts import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_EMBEDDED: Final = "embedded/"
OF_NATIVE: Final = "embedded-qwen/"
"""How names of the embedded models' tasks begin."""


ONE_WORD: Final = ("color", "shape_at", "count", "exist", "compare")
"""Tasks of the embedded models whose answers are one word, which prefill gives before anything is
evicted: under eviction their score says only whether the answer ends after it."""


PLANNED_SEED: Final = 1
"""Of the questions whose rows ship; those of seed 0 were seen before numbers were fixed."""


def planned(samples: int, **options: Any) -> dict[str, Any]:
    """What a study is called with for rows that ship.

    Args:
        samples: Questions per task, fixed beforehand and at least 48. Those of T-T1, T-T5, L-T5,
            L-F6, X-1 and X-8 come from a calculation of power, from effects seen on other
            questions, and those of T-F4, T-T9 and T-F6 from one without; those of all others, 128
            or 256, were chosen without one.
        **options: Budgets and the like where they are not the study's own.
    """
    return {"samples": samples, "seed": PLANNED_SEED, **options}


TIGHT: Final = (0.117, 0.05)
"""Budgets that stand for the papers' 5 %: as many entries as those have, about 32, and 5 %."""


TIGHT_RULE: Final = (
    "where it was asked, also with as many entries as the paper's 5 %, and a budget at which every "
    "task is at its floor or ceiling doesn't count beside one at which that isn't so"
)
"""What a claim about 5 % is judged at, in words."""


def tight(frame: pd.DataFrame) -> list[float]:
    """Those of the tight budgets that were asked."""
    asked = set(frame["retention"])
    return [retention for retention in TIGHT if retention in asked] or [TIGHT[-1]]


def where_testable(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Parts of which one stands for all: those that can be tested here, or all if none can."""
    parts = list(verdicts)
    return [part for part in parts if part.outcome is not Outcome.UNTESTABLE] or parts


def evictable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of tasks whose answers depend on what stays in the cache."""
    words = [of + name for of in (OF_EMBEDDED, OF_NATIVE) for name in ONE_WORD]
    return frame[~frame["task"].isin(words)]


def several_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of questions whose right answer has several words; all, if there are none such."""
    several = frame[[" " in references[0] for references in frame["reference"]]]
    return several if len(several) else frame


def short(task: str) -> str:
    """A task's name as it is shown."""
    return task.removeprefix(OF_EMBEDDED)


def here(frame: pd.DataFrame) -> str:
    """Heading of our columns: whose numbers they are."""
    models = sorted(frame["model"].unique()) if "model" in frame.columns else []
    return f"here ({', '.join(f'{name} model' for name in models)})" if models else "here"


def pick(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows whose columns have the given values; a list means any of them."""
    rows = frame
    for name, value in wanted.items():
        values = value if isinstance(value, list | tuple) else [value]
        rows = rows[rows[name].isin(values)]
    return rows


def summary(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean score with its 95 % interval per group, and what was held on average."""
    from analysis.scoring.summaries import summarise

    scores = summarise(frame, list(by))
    return scores[[*by, "metric", "n", "score", "low", "high", "kv_share"]]


def printed(numbers: pd.DataFrame, **wanted: Any) -> float:
    """The one printed number of a paper's table with these labels, NaN if it prints none."""
    matching = pick(numbers, **wanted)["value"].dropna()
    return float(matching.iloc[0]) if len(matching) else float("nan")


def setting(numbers: pd.DataFrame, name: str) -> pd.Series[str]:
    """One field of a paper's ``setting`` column, such as ``retention`` of ``a=b;retention=5%``."""
    return numbers["setting"].str.extract(rf"(?:^|;){name}=([^;]*)", expand=False).fillna("")


def points(
    axes: Axes,
    x: Sequence[float],
    cells: pd.DataFrame,
    look: Look,
    *,
    label: str | None = None,
    joined: bool = True,
) -> None:
    """Scores with their intervals, in percent."""
    score = 100 * cells["score"].to_numpy()
    below = score - 100 * cells["low"].to_numpy()
    over = 100 * cells["high"].to_numpy() - score
    axes.errorbar(
        x,
        score,
        yerr=[below.clip(0), over.clip(0)],
        color=look.color,
        marker=look.marker,
        linestyle=look.dash if joined else "none",
        label=look.label if label is None else label,
        capsize=2,
        elinewidth=0.9,
    )


def level(axes: Axes, score: float, label: str = "full cache") -> None:
    """A dotted line at the score of the full cache."""
    axes.axhline(100 * score, color="#000000", linestyle=":", linewidth=1.2, label=label)


def over_print(
    ours: int, theirs: int, *, width: int, height: float
) -> tuple[Figure, list[Axes], list[Axes]]:
    """Panels of ours in rows of ``width``, ``height`` inches each, and below them the paper's."""
    rows = -(-ours // width)
    figure, axes = canvas(rows + -(-theirs // width), width, height=height)
    above, below = list(axes[:rows].ravel()), list(axes[rows:].ravel())
    for place in (*above[ours:], *below[theirs:]):
        place.set_visible(False)
    return figure, above[:ours], below[:theirs]


def legend_below(figure: Any, axes: Axes, columns: int) -> None:
    """One legend under all panels."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=min(columns, len(unique))
    )


def cell_of(cell: pd.DataFrame, *, in_percent: bool = True) -> str:
    """Score and interval of a summary's only row, a dash if there is none."""
    if cell.empty:
        return MISSING
    score, low, high = (float(cell[name].iloc[0]) for name in ("score", "low", "high"))
    if in_percent:
        return percent(score, low, high)
    interval = "" if low != low else f" [{low:.2f}, {high:.2f}]"
    return f"{score:.2f}{interval}"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
