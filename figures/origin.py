"""Where an artefact's rows come from: those that ship, or questions asked here and now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from analysis.asking.replay import DIFFERS, TIED, Compared, NotShippedError, Replay
from analysis.asking.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from analysis.studies import Study
    from figures.contract import Artefact
    from lightkv import VLM

REPLAYING: Final = ("replay", "fresh")
"""Options that say what becomes of rows that ship."""

NONE_SHIP: Final = "no rows ship"


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
        shipped: Whether they ship with the package.
        why: Why they don't, "" where none are meant to.
        used: Of rows that ship: how many, by key of their configuration.
        compared: Those that were asked again.
    """

    shipped: bool = False
    why: str = ""
    used: Mapping[str, int] = field(default_factory=dict)
    compared: tuple[Compared, ...] = ()

    def record(self) -> dict[str, Any]:
        """As it stands in an artefact's record."""
        return asdict(self)


def measured(
    target: Artefact,
    study: Study,
    vlms: Sequence[VLM],
    wanted: Mapping[str, Any],
    store: Store | None,
    rows: Replay | None,
) -> tuple[pd.DataFrame, dict[str, Any], Origin]:
    """What an artefact's study returns, what it was called with, and where its rows come from.

    Rows that ship are taken where the artefact plans for them and nothing else was asked for.

    Args:
        target: The artefact.
        study: Its study.
        vlms: The models that it is asked of, none where it needs none.
        wanted: Options set by the user.
        store: Where answers are kept.
        rows: Those that ship, with the seed of the draw; None to ask everything.
    """
    why = ""
    if target.planned and rows is not None:
        if not wanted and rows.shipped.size:
            planned = {**target.options, **target.planned}
            try:
                with nullcontext(store) if store is not None else Store(None) as kept:
                    frame = _run(study, vlms, planned, kept, rows)
                return frame, planned, Origin(True, "", rows.used, tuple(rows.compared))
            except NotShippedError as error:
                why = error.reason
        else:
            why = f"{', '.join(wanted)} was set" if wanted else NONE_SHIP
    usual = {**target.options, **wanted}
    return _run(study, vlms, usual, store), usual, Origin(why=why)


def _run(
    study: Study,
    vlms: Sequence[VLM],
    settings: Mapping[str, Any],
    store: Store | None,
    rows: Replay | None = None,
) -> pd.DataFrame:
    apart = {"store": store, "progress": False}
    apart = {name: value for name, value in apart.items() if name in study.parameters}
    if rows is None or store is None:
        return _rows(study, vlms, {**settings, **apart})
    with store.over(rows):
        return _rows(study, vlms, {**settings, **apart})


def _rows(study: Study, vlms: Sequence[VLM], options: Mapping[str, Any]) -> pd.DataFrame:
    """What a study returns of each model, one after the other."""
    import pandas as pd

    if not study.needs_model:
        return study.run(**options)
    frames = [study.run(vlm, **options) for vlm in vlms]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Replayed:
    """How all rows that ship compare with those asked again, over several artefacts.

    Attributes:
        rows: Rows that ship and are drawn from.
        again: How many of them were asked again.
        differ: Those whose answer or size differs here.
        tied: Those whose answer differs where two tokens were nearly as likely.
    """

    rows: int
    again: int
    differ: tuple[dict[str, Any], ...]
    tied: tuple[dict[str, Any], ...]


def replayed(origins: Iterable[Mapping[str, Any]]) -> Replayed:
    """The sum over records (:meth:`Origin.record`); rows that artefacts share count once."""
    used: dict[str, int] = {}
    again: dict[tuple[str, int], dict[str, Any]] = {}
    for one in origins:
        for key, count in one.get("used", {}).items():
            used[key] = max(used.get(key, 0), count)
        again |= {(row["key"], row["item"]): row for row in one.get("compared", ())}
    rows: Sequence[dict[str, Any]] = list(again.values())
    return Replayed(
        sum(used.values()),
        len(rows),
        tuple(row for row in rows if row["state"] == DIFFERS),
        tuple(row for row in rows if row["state"] == TIED),
    )
