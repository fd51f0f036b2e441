"""X-6: every method at every retention, under the three protocols of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

from analysis.asking.evaluation import DEFAULT_BATCH_SIZE, evaluate
from analysis.asking.method_grid import compressors
from analysis.asking.question_rows import read_rows, shipped_rows
from analysis.studies.base import Settings, Tasks, register
from analysis.studies.retention import RETENTIONS
from analysis.tasks import Task
from analysis.tasks.embedded import EVERY_KIND
from lightkv.protocols import PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

SAMPLES: Final = 16
"""Questions per task: there are two hundred settings under three protocols."""

COMPARED: Final = (
    *("vanilla", "lightkv", "divprune", "tgvkv", "streamingllm", "snapkv", "h2o"),
    *("elasticcache", "prefixkv", "random"),
)
"""What is asked where nothing ships: all methods would take days on a large model."""


@register
def every_method(
    vlm: VLM,
    *,
    methods: Sequence[str] | None = None,
    tasks: Tasks = EVERY_KIND,
    retentions: tuple[float, ...] = RETENTIONS,
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Every registered method on every task under every protocol.

    Asking takes about an hour on one core, so what ships for the embedded model is shown where it
    fits. Any other model, and any other choice of methods, tasks, retentions or questions, is
    asked.

    Args:
        vlm: The model.
        methods: Methods as text (see :mod:`lightkv.catalogue`), "all" for every one; None for what
            ships, or else :data:`COMPARED`.
        tasks: What is asked.
        retentions: Shares of the cache that evictors keep, and of the vision tokens that pruners
            with such an option keep.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with the registered name in ``method`` and ``retention``, NaN for methods
        without one. Cells that a method refuses are missing.
    """
    names = [one.name if isinstance(one, Task) else one for one in tasks]
    asked = (tuple(names), tuple(retentions), samples, settings.get("seed", 0))
    usual = asked == (EVERY_KIND, RETENTIONS, SAMPLES, 0)
    rows = shipped_rows(vlm.fingerprint) if usual and methods is None else None
    if rows is None:
        rows = evaluate(
            vlm,
            tasks,
            compressors(COMPARED if methods is None else methods, retentions, vlm.facts),
            protocols=tuple(PROTOCOLS),
            samples=samples,
            seed=settings.get("seed", 0),
            store=settings.get("store"),
            batch_size=settings.get("batch_size", DEFAULT_BATCH_SIZE),
            progress=settings.get("progress", True),
            on_refusal=lambda *_: None,
        )
    return _named(rows)


def evaluated(path: str | Path) -> pd.DataFrame:
    """What :func:`every_method` returns, from a file that ``lightkv evaluate --out`` wrote.

    Raises:
        InputError: The file can't be read, or lacks a column.
    """
    return _named(read_rows(path))


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Labels such as "snapkv 20 %" taken apart."""
    parts = rows["method"].str.extract(r"^(?P<name>.+?)(?: (?P<share>[\d.]+) %)?$")
    return rows.assign(method=parts["name"], retention=parts["share"].astype(float) / 100)
