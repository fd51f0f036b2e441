"""Tasks x methods x protocols: each question asked once, stored as it goes, resumed if stopped.

Everything is checked before the model runs: tasks and their files, hyperparameters against the
model, and one prompt of each task and protocol against each method. A batch is stored before the
next one is asked. Batches are cut from the whole list of questions, sorted by length, so a run that
is picked up again asks the same batches as one that was not interrupted.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis import provenance
from analysis.asking.rows import VANILLA, Configuration, Row
from analysis.asking.store import Store
from analysis.scoring.metrics import metric
from analysis.tasks import Task, TaskItem, task
from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError, LightKVError, StoreError, UnsupportedError
from lightkv.prompting import QUESTION_FIRST
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM, Answer
    from lightkv.contract.layout import TokenLayout

DEFAULT_BATCH_SIZE = 16

Methods = Mapping[str, Compressor | None]
Jobs = Sequence[tuple[str, "Job"]]
OnRefusal = Callable[[str, str, str, LightKVError], None]


class BatchTooLargeError(InvalidValueError):
    """Too many questions at once for the device."""


@dataclass(frozen=True)
class Job:
    """The questions of one task for one method under one protocol.

    Attributes:
        task: The task.
        items: All of its questions, also finished ones.
        compressor: The method, None for the full cache.
        configuration: What the answers depend on.
    """

    task: Task
    items: tuple[TaskItem, ...]
    compressor: Compressor | None
    configuration: Configuration

    def batches(self, size: int, finished: frozenset[int]) -> Iterator[list[TaskItem]]:
        """Batches of questions of similar length that are not finished."""
        ordered = sorted(self.items, key=_length)
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            left = [item for item in batch if item.index not in finished]
            if left:
                yield left


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


def plan(
    vlm: VLM,
    tasks: Sequence[Task],
    methods: Methods,
    *,
    protocols: Sequence[str] = (QUESTION_FIRST,),
    samples: int | None,
    seed: int,
    max_new_tokens: int | None = None,
) -> list[tuple[str, Job]]:
    """Jobs with their labels.

    Raises:
        LightKVError: A task's questions can't be read.
    """
    jobs = []
    for given in tasks:
        items = tuple(given.items(samples, seed))
        for protocol in protocols:
            for label, compressor in methods.items():
                configuration = configure(
                    vlm, given, compressor, seed, max_new_tokens, protocol=protocol
                )
                jobs.append((label, Job(given, items, compressor, configuration)))
    return jobs


def configure(
    vlm: VLM,
    given: Task,
    compressor: Compressor | None,
    seed: int,
    max_new_tokens: int | None = None,
    *,
    protocol: str = QUESTION_FIRST,
) -> Configuration:
    """What the answers of a method to a task depend on.

    Raises:
        UnsupportedError: The method does not print as what it is, so its results can't be told
            from those of another.
    """
    parameters = VANILLA if compressor is None else repr(compressor)
    if " at 0x" in parameters:
        raise UnsupportedError(
            f"{parameters} can't be stored: give the method a repr that names its hyperparameters"
        )
    return Configuration(
        model=vlm.name,
        fingerprint=vlm.fingerprint,
        method=VANILLA if compressor is None else type(compressor).__name__,
        parameters=parameters,
        task=given.name,
        task_fingerprint=given.fingerprint,
        protocol=protocol,
        metric=given.metric,
        seed=seed,
        max_new_tokens=given.max_new_tokens if max_new_tokens is None else max_new_tokens,
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm.attention,
        device=vlm.device.type,
        revision=provenance.code_revision(),
        versions=json.dumps(provenance.versions(), sort_keys=True),
    )


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


@dataclass(frozen=True)
class Refusals:
    """What happens to methods that can't be used.

    Attributes:
        heard: Told of each; None raises.
    """

    heard: OnRefusal | None

    def refuse(self, protocol: str, task: str, label: str, error: LightKVError) -> None:
        """Tell, or raise the error."""
        if self.heard is None:
            raise error
        self.heard(protocol, task, label, error)

    def without_misfits(
        self, vlm: VLM, methods: Methods, tasks: Sequence[Task], protocols: Sequence[str]
    ) -> Methods:
        """Methods whose hyperparameters fit the model."""
        fitting = {}
        for label, compressor in methods.items():
            try:
                if compressor is not None:
                    compressor.check(vlm.facts)
                fitting[label] = compressor
            except LightKVError as error:
                for protocol, given in itertools.product(protocols, tasks):
                    self.refuse(protocol, given.name, label, error)
        return fitting

    def checked(self, vlm: VLM, jobs: Jobs) -> Jobs:
        """Jobs whose first prompt can be compressed."""
        layouts: dict[tuple[str, str], TokenLayout] = {}
        fitting = []
        for label, job in jobs:
            protocol = job.configuration.protocol
            where = job.task.name, protocol
            try:
                if where not in layouts:
                    request = job.items[0].request(protocol)
                    layouts[where] = protocol_named(protocol).layout(vlm, [request])
                if job.compressor is not None:
                    job.compressor.check_layout(layouts[where])
                fitting.append((label, job))
            except LightKVError as error:
                self.refuse(protocol, job.task.name, label, error)
        return fitting


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
                    store.add(job.configuration, _ask(vlm, job, batch))
                    bar.update(len(batch))
            except (StoreError, BatchTooLargeError):
                raise
            except LightKVError as error:
                refusals.refuse(settings.protocol, job.task.name, label, error)
                refused.add(settings.key)
    return refused


def _ask(vlm: VLM, job: Job, batch: Sequence[TaskItem]) -> list[Row]:
    from torch import OutOfMemoryError

    settings = job.configuration
    start = time.perf_counter()
    try:
        answers = protocol_named(settings.protocol).ask(
            vlm,
            [item.request(settings.protocol) for item in batch],
            job.compressor,
            settings.max_new_tokens,
            settings.seed,
        )
    except OutOfMemoryError as error:
        allowed = "fewer, as the device's memory is full; finished questions are kept"
        raise BatchTooLargeError("batch_size", len(batch), allowed) from error
    seconds = (time.perf_counter() - start) / len(batch)
    return [_row(job, item, answer, seconds) for item, answer in zip(batch, answers, strict=True)]


def _row(job: Job, item: TaskItem, answer: Answer, seconds: float) -> Row:
    chosen, record = metric(job.task.metric), answer.record
    return Row(
        item=item.index,
        identity=item.identity,
        question=item.question,
        answer=answer.text,
        references=item.answers,
        score=chosen.score(answer.text, item.answers) if chosen.per_item else None,
        kv_bytes=record.kv_bytes,
        full_kv_bytes=record.full_kv_bytes,
        requested_retention=record.requested_retention,
        achieved_retention=record.achieved_retention,
        token_layers=sum(record.prefill_lengths),
        full_token_layers=record.layout.length * len(record.prefill_lengths),
        generated_tokens=len(answer.tokens),
        seconds=seconds,
        warnings=record.warnings,
    )


def _collect(jobs: Sequence[tuple[str, Job]], store: Store) -> pd.DataFrame:
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


def _length(item: TaskItem) -> tuple[int, int, int]:
    """Sort key: images first, they make the longest prompts; the index breaks ties."""
    return len(item.images), len(item.question), item.index
