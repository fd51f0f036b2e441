"""Make artefacts: study, table, figure and verdicts in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analysis.asking.packed import packed_rows
from analysis.asking.replay import Replay, Shipped
from analysis.asking.store import Store
from figures.artefacts import artefact
from figures.contract import Artefact
from figures.export import publish
from figures.models import opener
from figures.origin import REPLAYING, Origin, measured
from figures.view import made_html
from lightkv.errors import InputError, InvalidValueError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.studies import Study
    from lightkv import VLM

LOADING: Final = ("model", "device", "dtype")
"""Options that say which model is asked."""

_APART: Final = ("store", "progress")
"""What a study takes that doesn't change its table."""


@dataclass(frozen=True)
class Made:
    """An artefact with the frame that it is drawn from.

    Attributes:
        artefact: What was made.
        frame: What its study returned.
        parameters: The model and what the study was called with.
        origin: Where the rows come from.
    """

    artefact: Artefact
    frame: pd.DataFrame
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)

    @cached_property
    def figure(self) -> Figure:
        """The drawing."""
        return self.artefact.figure(self.frame)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Our numbers beside the paper's."""
        return self.artefact.table(self.frame)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Claims with their verdicts and the numbers behind them."""
        return self.artefact.verdicts(self.frame)

    def publish(self, out: str | Path) -> Path:
        """Write pictures, tables, rows and record into ``out/<id>`` and return that folder.

        Raises:
            StoreError: It can't be written.
        """
        return publish(
            self.artefact,
            self.frame,
            out,
            parameters=self.parameters,
            drawing=self.figure,
            rows=self.origin.record(),
        )

    def __repr__(self) -> str:
        lines = [f"{self.artefact.id} {self.artefact.title}"]
        lines += [f"  {one.verdict}: {one.claim}" for one in self.verdicts.itertuples()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return made_html(self.artefact, self.figure, self.table, self.verdicts)


def make(
    artefact_id: str,
    vlm: VLM | Sequence[VLM] | None = None,
    *,
    frame: pd.DataFrame | None = None,
    store: Store | None = None,
    shipped: Replay | None = None,
    **options: Any,
) -> Made:
    """Run an artefact's study; draw, table and judge what it returns.

    Args:
        artefact_id: Such as "T-T5".
        vlm: The model; several are asked one after the other, and their rows joined. None where all
            follows from dimensions.
        frame: What the study returned before; nothing is run then.
        store: Where answers and tables are kept.
        shipped: Rows to take where they are those that the artefact plans for, and no option is
            set; None asks everything.
        **options: Of the study, such as ``samples``, ``seed`` or ``tasks``. What is left out or
            None is as the artefact and its study say.

    Raises:
        UnknownNameError: There is no such artefact, or its study takes no such option.
        InputError: The study needs a model, or options were given beside a frame.
    """
    target = artefact(artefact_id)
    wanted = _set(options)
    for name in ignored(target, wanted):
        raise UnknownNameError(f"option of {target.id}", name, taken(target))
    if frame is not None:
        if wanted:
            raise InputError(f"{', '.join(wanted)} can't change a frame that is there already")
        return Made(target, frame)
    study = study_of(target)
    vlms = _several(vlm) if study.needs_model else []
    if study.needs_model and not vlms:
        raise InputError(f"{target.id} asks a model: pass one, such as lightkv.load()")
    frame, settings, origin = measured(target, study, vlms, wanted, store, shipped)
    defaults = {k: v for k, v in study.parameters.items() if k not in _APART and v is not None}
    return Made(target, frame, {**_model(vlms), **defaults, **settings}, origin)


def make_all(
    artefacts: str,
    *,
    model: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    results: str | Path | None = None,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    replay: int = 0,
    fresh: bool = False,
    **common: Any,
) -> Iterator[Made]:
    """Make several artefacts with one store, one after the other; each model is loaded once.

    Args:
        artefacts: Ids, separated by spaces.
        model: "embedded", "embedded-qwen", "embedded-fuyu", a hub id or a folder; None for each
            artefact's own.
        device: Where to put it.
        dtype: Of its numbers, None for what suits the device.
        results: Folder in which answers and tables are kept, None for nowhere.
        out: Folder in which each is published, None for nowhere.
        options: Further options of the studies.
        replay: Seed of the draw of shipped rows that are asked again.
        fresh: Take no rows that ship; ask everything.
        **common: ``samples``, ``seed``, ``tasks``. An option goes to the studies that take it.

    Raises:
        UnknownNameError, InputError: As :func:`make`.
        InvalidValueError: An option has no effect on any of the artefacts.
    """
    targets = [artefact(one) for one in artefacts.split()]
    if not targets:
        raise InputError("no artefact named; give ids such as 'T-T5 L-F3'")
    wanted = _set({**common, **(options or {})})
    refuse_idle(targets, wanted)
    load = opener(device, dtype)
    taking = not fresh and any(one.planned for one in targets)
    rows = (packed_rows() or Shipped(Store(None))) if taking else None
    with Store(results) as store:
        for one in targets:
            useful = {k: v for k, v in wanted.items() if k not in ignored(one, wanted)}
            shipped = None if rows is None else Replay(rows, replay)
            own = asked_models(one)
            vlms = [load(name) for name in ((model,) if own and model is not None else own)]
            made = make(one.id, vlms, store=store, shipped=shipped, **useful)
            if out is not None:
                made.publish(out)
            yield made


def study_of(target: Artefact) -> Study:
    """The study of an artefact."""
    from analysis.studies import study

    return study(target.study)


def asked_models(target: Artefact) -> tuple[str, ...]:
    """Embedded models that an artefact asks where none is named; none if it asks no model."""
    return target.models if study_of(target).needs_model else ()


def taken(target: Artefact) -> tuple[str, ...]:
    """Options that the artefact's study takes."""
    return tuple(name for name in study_of(target).parameters if name not in _APART)


def ignored(target: Artefact, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the options that would change nothing about an artefact."""
    loading = LOADING if study_of(target).needs_model else ()
    replaying = REPLAYING if target.planned else ()
    return tuple(name for name in options if name not in (*taken(target), *loading, *replaying))


def refuse_idle(targets: Sequence[Artefact], options: Mapping[str, Any]) -> None:
    """Refuse an option that changes none of the artefacts.

    Raises:
        InvalidValueError: There is one.
    """
    for name, value in options.items():
        if all(name in ignored(one, options) for one in targets):
            known = sorted({known for one in targets for known in taken(one)})
            ids = ", ".join(one.id for one in targets)
            allowed = f"left out: it has no effect on {ids}"
            if known:
                allowed += f", which take {', '.join(known)}"
            raise InvalidValueError(name, value, allowed)


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something; lists as tuples, as studies take them."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }


def _several(vlm: VLM | Sequence[VLM] | None) -> list[VLM]:
    """One model, several or none, as a list."""
    if vlm is None:
        return []
    return list(vlm) if isinstance(vlm, list | tuple) else [vlm]  # type: ignore[list-item]


def _model(vlms: Sequence[VLM]) -> dict[str, Any]:
    """What the record says of the models."""
    if not vlms:
        return {}
    dtypes = dict.fromkeys(str(vlm.dtype).removeprefix("torch.") for vlm in vlms)
    devices = dict.fromkeys(str(vlm.device) for vlm in vlms)
    names = ", ".join(vlm.name for vlm in vlms)
    return {"model": names, "device": ", ".join(devices), "dtype": ", ".join(dtypes)}
