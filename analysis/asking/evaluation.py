"""Tasks x methods x protocols: each question asked once, stored as it goes, resumed if stopped.

Everything is checked before the model runs: tasks and their files, hyperparameters against the
model, and one prompt of each task and protocol against each method. A batch is stored before the
next one is asked. Batches are cut from the whole list of questions, sorted by length, so a run that
is picked up again asks the same batches as one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from analysis.asking.answering import BatchTooLargeError, ask
from analysis.asking.jobs import Jobs, Methods, plan
from analysis.asking.refusals import OnRefusal, Refusals
from analysis.asking.store import Store
from analysis.scoring.metrics import metric
from analysis.tasks import Task, task
from lightkv.errors import InvalidValueError, LightKVError, StoreError, UnsupportedError
from lightkv.prompting import QUESTION_FIRST
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

DEFAULT_BATCH_SIZE = 16


def evaluate(
    vlm: VLM,
    tasks: Sequence[str | Task],
    methods: Methods,
    *,
    protocols: Sequence[str] = (QUESTION_FIRST,),
    samples: int | None = 100,
    seed: int = 0,
    store: Store | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    max_new_tokens: int | None = None,
    progress: bool = True,
    on_refusal: OnRefusal | None = None,
) -> pd.DataFrame:
    """Ask every method every question of every task, except what the store already holds.

    Methods that are the same compressor under two labels are asked once. Interrupting loses at
    most one batch. ``batch_size`` is not part of what an answer depends on, so a run that was out
    of memory can be picked up with a smaller one.

    Args:
        vlm: The model.
        tasks: Names (see :func:`analysis.tasks.task`) or tasks.
        methods: Compressors by label, None for the full cache.
        protocols: Names of :data:`lightkv.protocols.PROTOCOLS`.
        samples: Questions per task, None for all of a task that has an end.
        seed: Which questions, and the seed of methods that draw at random.
        store: Where results are kept; None keeps them in memory.
        batch_size: Questions asked at once.
        max_new_tokens: Longest answer, None for each task's own.
        progress: Show a progress bar with the time left.
        on_refusal: Called with protocol, task, label and error where a method can't be used on the
            model, on a task's prompts or under a protocol; such cells are then left out. None
            raises the error instead.

    Returns:
        One row per protocol, label, task and question: the columns of
        :meth:`analysis.asking.store.Store.rows` with the label in ``method``.

    Raises:
        LightKVError: A task, method or setting can't be used; nothing has run yet.
        StoreError: Results can't be written; finished questions are kept.
    """
    chosen = [task(given) if isinstance(given, str) else given for given in tasks]
    _check(chosen, methods, protocols, seed, batch_size, max_new_tokens)
    refusals = Refusals(on_refusal)
    jobs = plan(
        vlm,
        chosen,
        refusals.without_misfits(vlm, methods, chosen, protocols),
        protocols=protocols,
        samples=samples,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    # Reversed, so that of several labels the first is the one that is told.
    distinct = {pair[1].configuration.key: pair for pair in reversed(jobs)}
    asked = refusals.checked(vlm, list(reversed(distinct.values())))
    with nullcontext(store) if store is not None else Store(None) as kept:
        refused = _run(vlm, asked, kept, refusals, batch_size, progress)
        left = {job.configuration.key for _, job in asked} - refused
        if not left:
            raise UnsupportedError("none of these methods can be used so: see what was refused")
        return _collect([pair for pair in jobs if pair[1].configuration.key in left], kept)


def _check(
    tasks: Sequence[Task],
    methods: Methods,
    protocols: Sequence[str],
    seed: int,
    batch_size: int,
    max_new_tokens: int | None,
) -> None:
    if not tasks:
        raise InvalidValueError("tasks", tasks, "at least one task")
    names = [given.name for given in tasks]
    if len(set(names)) != len(names):
        raise InvalidValueError("tasks", names, "tasks of different names")
    if not methods:
        raise InvalidValueError("methods", methods, "at least one method")
    if not protocols:
        raise InvalidValueError("protocols", protocols, "at least one protocol")
    if len(set(protocols)) != len(protocols):
        raise InvalidValueError("protocols", protocols, "each protocol once")
    for name in protocols:
        protocol_named(name)
    if seed < 0:
        raise InvalidValueError("seed", seed, "at least 0")
    if batch_size < 1:
        raise InvalidValueError("batch_size", batch_size, "at least 1")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise InvalidValueError("max_new_tokens", max_new_tokens, "at least 1")


def _run(
    vlm: VLM,
    jobs: Jobs,
    store: Store,
    refusals: Refusals,
    batch_size: int,
    progress: bool,
) -> set[str]:
    """Ask what is not finished; returns the keys of jobs whose method refused."""
    from tqdm.auto import tqdm

    refused = set()

    finished = [store.finished(job.configuration.key) for _, job in jobs]
    total = sum(len(job.items) for _, job in jobs)
    done = sum(
        item.index in own
        for (_, job), own in zip(jobs, finished, strict=True)
        for item in job.items
    )
    with tqdm(total=total, initial=done, unit="question", disable=not progress) as bar:
        for (label, job), own in zip(jobs, finished, strict=True):
            settings = job.configuration
            bar.set_description(f"{settings.protocol} {job.task.name} {label}")
            try:
                for batch in job.batches(batch_size, own):
                    rows = ask(vlm, batch, job.compressor, settings, metric(job.task.metric))
                    store.add(settings, rows)
                    bar.update(len(batch))
            except (StoreError, BatchTooLargeError):
                raise
            except LightKVError as error:
                refusals.refuse(settings.protocol, job.task.name, label, error)
                refused.add(settings.key)
    return refused


def _collect(jobs: Jobs, store: Store) -> pd.DataFrame:
    """Rows of the jobs' questions, once per label, in the order of the jobs."""
    import pandas as pd

    rows = store.rows({job.configuration.key for _, job in jobs})
    by_key = dict(list(rows.groupby("key")))
    parts = []
    for label, job in jobs:
        own = by_key[job.configuration.key]
        asked = own["item"].isin([item.index for item in job.items])
        parts.append(own[asked].assign(method=label))
    return pd.concat(parts, ignore_index=True)
