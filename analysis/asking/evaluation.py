"""Tasks x methods x protocols: each question asked once, stored as it goes, resumed if stopped.

Everything is checked before the model runs: tasks and their files, hyperparameters against the
model, and one prompt of each task and protocol against each method. A batch is stored before the
next one is asked. Batches are cut from the whole list of questions, sorted by length, so a run that
is picked up again asks the same batches as one that was not interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.asking.answering import BatchTooLargeError, ask
from analysis.asking.decisions import watched
from analysis.asking.jobs import Cut, Job, Jobs, Methods, Shard, plan
from analysis.asking.opening import UnloadedVLM, loaded
from analysis.asking.refusals import OnRefusal, Refusals
from analysis.asking.replay import REFUSED, NotShippedError, Replay
from analysis.asking.scoring import catch_up
from analysis.asking.store import Store
from analysis.tasks import Task, TaskItem, task
from lightkv.errors import InvalidValueError, LightKVError, StoreError, UnsupportedError
from lightkv.prompting import QUESTION_FIRST
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

DEFAULT_BATCH_SIZE = 16


def evaluate(
    vlm: VLM | UnloadedVLM,
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
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Ask every method every question of every task, except what the store already holds.

    Methods that are the same compressor under two labels are asked once. Interrupting loses at
    most one batch. ``batch_size`` is not part of what an answer depends on, so a run that was out
    of memory can be picked up with a smaller one.

    Args:
        vlm: The model; one that is not loaded yet is loaded when there is something to ask.
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
        shard: Ask this part of the batches only; others ask the rest, with the same batch size.

    Returns:
        One row per protocol, label, task and question: the columns of
        :meth:`analysis.asking.store.Store.rows` with the label in ``method``.

    Raises:
        LightKVError: A task, method or setting can't be used; nothing has run yet.
        StoreError: Results can't be written; finished questions are kept.
    """
    wanted = [task(one) if isinstance(one, str) else one for one in tasks]
    _check(wanted, methods, protocols, seed, batch_size, max_new_tokens)
    with nullcontext(store) if store is not None else Store(None) as kept:
        refusals = Refusals(on_refusal, kept)
        jobs = plan(
            vlm,
            wanted,
            refusals.without_misfits(vlm, methods, wanted, protocols),
            protocols=protocols,
            samples=samples,
            seed=seed,
            max_new_tokens=max_new_tokens,
            cut=Cut(batch_size, shard),
        )
        if kept.replay is not None:
            return _replayed(vlm, jobs, kept, kept.replay, refusals, progress)
        kept.note_asked(
            (job.key, label, job.configuration.protocol, job.task.name, len(job.items))
            for label, job in jobs
        )
        # Reversed, so that of several labels the first is the one that is reported.
        distinct = {pair[1].key: pair for pair in reversed(jobs)}
        usable = refusals.usable(list(reversed(distinct.values())))
        refused = _run(vlm, usable, kept, refusals, progress)
        left = {job.key for _, job in usable} - refused
        if not left:
            raise UnsupportedError("none of these methods can be used here: see what was refused")
        return _collect([pair for pair in jobs if pair[1].key in left], kept, {k: k for k in left})


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
    names = [one.name for one in tasks]
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
    vlm: VLM | UnloadedVLM, jobs: Jobs, store: Store, refusals: Refusals, progress: bool
) -> set[str]:
    """Ask what is not finished; returns the keys of jobs whose method refused."""
    from tqdm.auto import tqdm

    finished = {job.key: store.finished(job.key) for _, job in jobs}
    total = sum(len(job.part) for _, job in jobs)
    waiting = [pair for pair in jobs if pair[1].left(finished[pair[1].key])]
    done = total - sum(job.left(finished[job.key]) for _, job in waiting)
    fitting = refusals.checked(vlm, waiting)
    refused = {job.key for _, job in waiting} - {job.key for _, job in fitting}
    for _, job in jobs:
        catch_up(job.scoring, job.key, job.items, store)
    with tqdm(total=total, initial=done, unit="question", disable=not progress) as bar:
        for label, job in fitting:
            bar.set_description(f"{job.configuration.protocol} {job.task.name} {label}")
            try:
                for batch in job.batches(finished[job.key]):
                    _ask_and_store(vlm, job, batch, store)
                    bar.update(len(batch))
            except (StoreError, BatchTooLargeError):
                raise
            except LightKVError as error:
                refusals.refuse_job(label, job, error)
                refused.add(job.key)
    return refused


def _ask_and_store(
    vlm: VLM | UnloadedVLM, job: Job, batch: Sequence[TaskItem], store: Store
) -> None:
    model, decisions = loaded(vlm), []
    with watched(model) if store.keeps_decisions else nullcontext() as steps:
        rows = ask(model, batch, job.compressor, job.configuration)
    if steps is not None:
        decisions = steps.decisions(rows, job.configuration.protocol)
    answers = zip(batch, (row.answer for row in rows), strict=True)
    outcomes = job.scoring.outcomes(answers)
    store.add(job.configuration, rows, job.scoring.scorer, outcomes, decisions)


def _replayed(
    vlm: VLM | UnloadedVLM,
    jobs: Jobs,
    store: Store,
    replay: Replay,
    refusals: Refusals,
    progress: bool,
) -> pd.DataFrame:
    """Rows that ship, after some of the same questions were asked again.

    Raises:
        NotShippedError: Not all that is to be asked ships.
    """
    shipped = replay.shipped
    distinct = {pair[1].key: pair for pair in reversed(jobs)}
    keys = {job.key: shipped.key_of(job) for _, job in distinct.values()}
    lacking = [pair for pair in distinct.values() if keys[pair[1].key] is None]
    if lacking and len(lacking) < len(distinct):
        lacking = list(refusals.checked(vlm, refusals.usable(lacking)))
    if lacking:
        missing = [job for _, job in lacking]
        raise NotShippedError(shipped.lacking(missing), [job for _, job in distinct.values()])
    held = {key: theirs for key, theirs in keys.items() if theirs is not None}
    tasks = Counter(_asked_as(job) for key, (_, job) in distinct.items() if key in held)
    again = {}
    for key, theirs in held.items():
        label, job = distinct[key]
        drawn = replay.drawn(job, theirs, tasks[_asked_as(job)])
        part = tuple(item for item in job.items if item.index in drawn)
        again[key] = label, replace(job, items=part)
    refused = _run(vlm, list(again.values()), store, refusals, progress)
    if refused:
        raise NotShippedError(REFUSED, [job for _, job in distinct.values()])
    for key, (_, job) in again.items():
        drawn = frozenset(item.index for item in job.items)
        replay.compare(distinct[key][1], held[key], drawn, store.rows({key}))
        catch_up(job.scoring, held[key], distinct[key][1].items, shipped.store)
    return _collect([pair for pair in jobs if pair[1].key in held], shipped.store, held)


def _asked_as(job: Job) -> tuple[str, str]:
    return job.configuration.parameters, job.configuration.protocol


def _collect(jobs: Jobs, store: Store, keys: Mapping[str, str]) -> pd.DataFrame:
    """Rows of the jobs' questions, once per label, in the order of the jobs; ``keys`` has the key
    in the store of each job's."""
    import pandas as pd

    rows = store.rows({keys[job.key] for _, job in jobs}, [job.scoring.scorer for _, job in jobs])
    by_key = dict(list(rows.groupby("key")))
    parts = []
    for label, job in jobs:
        stored = by_key.get(keys[job.key], rows.iloc[:0])
        asked = stored["item"].isin([item.index for item in job.part])
        parts.append(stored[asked].assign(method=label))
    return pd.concat(parts, ignore_index=True)
