"""What tables of methods by benchmarks share: ours above the paper's, and drawings of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.layout import Layout
from figures.artefacts.methods import LOOKS, OURS, VANILLA
from figures.artefacts.shared import cell_of, level, pick, printed, summary
from figures.style import BLACK, PALETTE
from figures.tables import MISSING, percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HERE: Final = "here"
AVERAGE: Final = ("Avg", "% of full cache")


def average(frame: pd.DataFrame, vanilla: pd.DataFrame) -> tuple[float, float, float]:
    """Mean over tasks of the score as a share of the full cache's, with its interval.

    The interval is that of the difference from the full cache, question by question. Tasks that
    the full cache scores 0 on are left out; NaN where none is left. Of benchmarks each score
    counts, see :mod:`analysis.scoring.leads`.
    """
    from analysis.scoring.intervals import difference
    from analysis.scoring.leads import has_scores, relative_lead

    if has_scores(frame):
        lead = relative_lead(frame, vanilla, vanilla)
        return 1 + lead.value, 1 + lead.low, 1 + lead.high
    full = vanilla.groupby("task")["score"].mean()
    full = full[full > 0]
    part, whole = (rows[rows["task"].isin(full.index)] for rows in (frame, vanilla))
    if part.empty or whole.empty:
        return (float("nan"),) * 3
    part = part.assign(score=part["score"] / part["task"].map(full))
    whole = whole.assign(score=whole["score"] / whole["task"].map(full))
    lead = difference(part, whole)
    return 1 + lead.value, 1 + lead.low, 1 + lead.high


def table(frame: pd.DataFrame, layout: Layout, extra: Callable[..., dict[Any, Any]]) -> Any:
    """Our rows, then the paper's, one row a model, setting and method.

    Args:
        frame: Question rows with ``compared`` and the layout's setting.
        layout: What is shown.
        extra: From (model, method, setting, printed rows) to more columns; of ours the model is
            :data:`HERE`.
    """
    import pandas as pd

    layout, scored = layout.asked(frame), layout.by_score(frame)
    settings = _cells(frame, layout)
    rows = [_ours(frame, scored, layout, method, at, extra) for method, at in settings]
    numbers = layout.numbers()
    for (model, method, setting), cells in numbers.groupby(
        ["model", "method", "setting"], sort=False
    ):
        repeated = method == VANILLA and setting != _first(numbers, str(model))
        if not repeated:
            named = (str(model), OURS.get(str(method), str(method)), layout.read(str(setting)))
            rows.append(_theirs(cells, layout, *named, extra))
    last = [*(column.heading for column in layout.columns), AVERAGE]
    known = dict.fromkeys(name for row in rows for name in row)
    columns = [*(name for name in known if name not in last), *(n for n in last if n in known)]
    whole = pd.DataFrame(rows).reindex(columns=pd.MultiIndex.from_tuples(columns))
    whole = whole.dropna(axis=1, how="all")
    return whole.astype(object).where(whole.notna(), MISSING)


def _first(numbers: pd.DataFrame, model: str) -> str:
    """Setting of the first row of the full cache, which is printed again at every budget."""
    return str(pick(numbers, model=model, method=VANILLA)["setting"].iloc[0])


def _cells(frame: pd.DataFrame, layout: Layout) -> list[tuple[str, Any]]:
    """Methods and settings in the order of the frame, the full cache first."""
    pairs = frame[["compared", layout.setting]].drop_duplicates()
    return [(str(method), at) for method, at in pairs.itertuples(index=False)]


def _row(layout: Layout, model: str, method: str, at: Any) -> dict[tuple[str, str], object]:
    return {
        ("model", ""): model,
        ("method", ""): LOOKS[method].label if method in LOOKS else method,
        ("setting", ""): "–" if method == VANILLA else layout.shown(at),
    }


def _ours(
    frame: pd.DataFrame,
    scored: pd.DataFrame,
    layout: Layout,
    method: str,
    at: Any,
    extra: Callable[..., Any],
) -> dict[tuple[str, str], object]:
    """Our row of a setting, from its questions and from the same by score."""
    wanted = {"compared": method, layout.setting: at}
    answers = pick(scored, **wanted)
    held = summary(answers, ("task",))
    row = _row(layout, f"{HERE} ({', '.join(sorted(frame['model'].unique()))})", method, at)
    row |= extra(HERE, method, at, pick(frame, **wanted))
    for column in layout.columns:
        cell = column.of(held)
        if len(cell):
            in_percent = layout.percent and not column.points
            row[column.heading] = cell_of(cell, in_percent=in_percent)
    value, low, high = average(answers, pick(scored, compared=VANILLA))
    row[AVERAGE] = "100" if method == VANILLA else percent(value, low, high)
    return row


def _theirs(
    cells: pd.DataFrame,
    layout: Layout,
    model: str,
    method: str,
    at: Any,
    extra: Callable[..., dict[Any, Any]],
) -> dict[tuple[str, str], object]:
    row = _row(layout, f"paper ({title(model)})", method, at)
    row |= extra(model, method, at, cells)
    for column in layout.columns:
        if not column.benchmark:
            continue
        cell = pick(cells, benchmark=column.benchmark, metric=column.metric)["printed"]
        row[column.heading] = cell.iloc[0] if len(cell) and cell.iloc[0] else MISSING
    mean = printed(cells, benchmark="average")
    if mean == mean:
        row[AVERAGE] = f"{mean:.1f}"
    return row


def title(model: str) -> str:
    """A paper model's name in print."""
    from lightkv.cost.presets import preset, presets

    return preset(model).title if model in presets() else model or "model not named"


def averages(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """What the drawings of averages show: ours with intervals, then the paper's.

    Returns:
        Columns whose ("here", or the paper's model), compared, the setting, average, low and high.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    scored = layout.by_score(frame)
    vanilla = pick(scored, compared=VANILLA)
    for method, at in _cells(frame, layout):
        cells = pick(scored, compared=method, **{layout.setting: at})
        value, low, high = average(cells, vanilla)
        where = {"whose": HERE, "compared": method, layout.setting: at}
        rows.append({**where, "average": value, "low": low, "high": high})
    for (model, name, text), cells in layout.numbers().groupby(
        ["model", "method", "setting"], sort=False
    ):
        if name != VANILLA:
            method, at = OURS.get(str(name), str(name)), layout.read(str(text))
            where = {"whose": model, "compared": method, layout.setting: at}
            rows.append({**where, "average": printed(cells, benchmark="average") / 100})
    return pd.DataFrame(rows).dropna(subset=["average"])


def dots(axes: Axes, data: pd.DataFrame, methods: Sequence[str], whose: Iterable[str]) -> None:
    """Averages as dots, one line a method; several models beside each other."""
    names = list(whose)
    for place, name in enumerate(names):
        shift = 0.0 if len(names) == 1 else 0.3 - 0.6 * place / (len(names) - 1)
        cells = data[data["whose"] == name]
        color, marker = PALETTE[place % len(PALETTE)], "osDv^P"[place % 6]
        heights = [len(methods) - 1 - methods.index(m) + shift for m in cells["compared"]]
        axes.hlines(heights, 100 * cells["low"], 100 * cells["high"], color=color, linewidth=1)
        label = HERE if name == HERE else title(name)
        axes.plot(100 * cells["average"], heights, marker, color=color, ms=4.5, label=label)
    axes.set_yticks(range(len(methods)), [LOOKS[m].label for m in reversed(methods)])
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.axvline(100, color=BLACK, linestyle=":", linewidth=1)
    axes.set_xlim(-3, 108)
    axes.set_xlabel("mean score, % of the full cache's")


def lines(axes: Axes, data: pd.DataFrame, x: list[Any], column: str, value: str) -> None:
    """One line a method over settings, at even places, dotted where the full cache is.

    Intervals are drawn where there are any.
    """
    methods = [m for m in LOOKS if m in set(data["compared"]) and m != VANILLA]
    for number, method in enumerate(methods):
        curve = pick(data, compared=method).set_index(column).reindex(x).dropna(subset=[value])
        look = LOOKS[method]
        shift = 0.05 * (number - (len(methods) - 1) / 2)
        places = [x.index(at) + shift for at in curve.index.tolist()]
        centre = 100 * curve[value].to_numpy(float)
        known = "low" in curve and curve["low"].notna().all()
        ends = [100 * curve[name].to_numpy(float) for name in ("low", "high")] if known else []
        axes.errorbar(
            places,
            centre,
            yerr=[centre - ends[0], ends[1] - centre] if ends else None,
            color=look.color,
            marker=look.marker,
            linestyle=look.dash,
            label=look.label,
            capsize=2,
            elinewidth=0.8,
        )
    full = pick(data, compared=VANILLA)
    if len(full):
        level(axes, float(full[value].iloc[0]))
    axes.set_xticks(range(len(x)))
