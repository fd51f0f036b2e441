"""The papers' own benchmarks in their tables: what is asked, how much, and how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from figures.artefacts import artefact, artefacts
from figures.building import jobs_of
from figures.contract import Artefact
from figures.making import asked_models
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    from analysis.asking.jobs import Job
    from analysis.asking.opening import UnloadedVLM
    from analysis.asking.store import Store
    from analysis.tasks import Task
    from lightkv import VLM

LMMS: Final = "lmms:"
"""How benchmarks are named as tasks."""

ALL: Final = 0
"""Questions per task: all of them."""


@dataclass(frozen=True)
class Group:
    """Artefacts that ask the same benchmarks.

    Attributes:
        artefacts: Their ids.
        tasks: The benchmarks as tasks.
    """

    artefacts: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Extent:
    """How much is to be asked.

    Attributes:
        questions: Of each benchmark, by its name.
        settings: Methods at a budget that are asked all of them, the full cache included.
        stored: Answers that are there already.
        seconds: What a question takes, by a first batch.
    """

    questions: Mapping[str, int]
    settings: Mapping[str, int]
    stored: int
    seconds: float

    @property
    def asks(self) -> int:
        """Answers of all settings."""
        return sum(count * self.settings[name] for name, count in self.questions.items())

    @property
    def left(self) -> int:
        """Answers that are to be asked."""
        return self.asks - self.stored


def targets(artefact_ids: Sequence[str]) -> list[Artefact]:
    """The artefacts of some ids, all of which can be made of published benchmarks.

    Raises:
        UnknownNameError: An id is unknown.
        InvalidValueError: One can't, or no id is given.
    """
    able = "with " + ", ".join(one.id for one in artefacts() if one.benchmarks)
    if not artefact_ids:
        raise InvalidValueError("--benchmarks", "of all artefacts", able)
    named = [artefact(one) for one in dict.fromkeys(artefact_ids)]
    for one in named:
        if not one.benchmarks:
            why = "is not made of benchmarks here" if asked_models(one) else "asks no questions"
            page = "docs/published-benchmarks.md says why"
            raise InvalidValueError("--benchmarks", one.id, f"{able}; {one.id} {why}; {page}")
    return named


def grouped(named: Sequence[Artefact], full: bool, folder: Path | None) -> list[Group]:
    """Artefacts by the benchmarks that they ask.

    Args:
        named: Of :func:`targets`.
        full: Whole benchmarks, not their lite parts.
        folder: Task files that stand for those of the harness, named as they are; None for its.

    Raises:
        InputError: The folder lacks one.
    """
    groups: dict[frozenset[str], Group] = {}
    for one in named:
        tasks = _tasks_of(one, full, folder)
        known = groups.get(frozenset(tasks), Group((), tasks))
        groups[frozenset(tasks)] = Group((*known.artefacts, one.id), known.tasks)
    return list(groups.values())


def _tasks_of(target: Artefact, full: bool, folder: Path | None) -> tuple[str, ...]:
    names = dict.fromkeys(one.full if full else one.lite for one in target.benchmarks)
    if folder is None:
        return tuple(LMMS + name for name in names)
    files = [folder.resolve() / f"{name}.yaml" for name in names]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is not there; the tasks are {', '.join(names)}")
    return tuple(f"{LMMS}{file}" for file in files)


def sources(tasks: Sequence[str], model: str | None) -> list[str]:
    """The data sets and the model that are needed, a line each: here, or to be downloaded.

    Raises:
        UnsupportedError: lmms-eval is not installed.
    """
    from analysis.lmms.loading import data_set

    here = _cached()
    lines = [_source("data set", data_set(name.removeprefix(LMMS)), here) for name in tasks]
    if model is not None and not Path(model).is_dir():
        lines.append(_source("model", model, here))
    return list(dict.fromkeys(lines))


def measure(
    groups: Sequence[Group],
    options: Mapping[str, Any],
    results: str | Path,
    tell: Callable[[str], None],
) -> Extent:
    """Load the benchmarks and ask a first batch, whose answers are kept.

    Args:
        groups: What is to be made.
        options: model, device, dtype, samples and seed, as far as they are set.
        results: Folder of stored results.
        tell: Takes what a benchmark remarks.

    Raises:
        InputError: A data set can't be loaded.
        LightKVError: The model can't be loaded, or can't answer.
    """
    import torch

    from analysis.asking.opening import loaded, open_model
    from analysis.asking.store import Store
    from analysis.tasks import task

    tasks = {name: task(name) for group in groups for name in group.tasks}
    for remark in (note for one in tasks.values() for note in one.notes):
        tell(remark)
    asked = {"samples": options.get("samples", ALL), "seed": options.get("seed", 0)}
    with Store(results) as store:
        vlm = open_model(
            store,
            options.get("model"),
            device=options.get("device", "cpu"),
            dtype=options.get("dtype"),
            attention="sdpa",
        )
        seconds = _first_batch(next(iter(tasks.values())), vlm, store, **asked)
        jobs: dict[str, Job] = {}
        for group in groups:
            settings = {**asked, "tasks": [tasks[name] for name in group.tasks]}
            for one in group.artefacts:
                jobs |= {job.key: job for job in jobs_of(artefact(one), loaded(vlm), settings)}
        stored = sum(len(job.items) - job.left(store.finished(job.key)) for job in jobs.values())
    # The notebooks load the model themselves, and a device need not hold it twice.
    del vlm
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    questions = {job.task.name: len(job.items) for job in jobs.values()}
    return Extent(questions, Counter(job.task.name for job in jobs.values()), stored, seconds)


def _first_batch(
    first: Task, vlm: VLM | UnloadedVLM, store: Store, *, samples: int, seed: int
) -> float:
    """Seconds that a question takes with the full cache, in one batch of a benchmark."""
    from analysis.asking.evaluation import DEFAULT_BATCH_SIZE, evaluate
    from analysis.asking.jobs import Shard

    count = len(first.items(samples or None, seed))
    rows = evaluate(
        vlm,
        [first],
        {"vanilla": None},
        samples=samples or None,
        seed=seed,
        store=store,
        progress=False,
        shard=Shard(1, -(-count // DEFAULT_BATCH_SIZE)),
    )
    return float(rows["seconds"].mean())


def _cached() -> frozenset[str]:
    """Hub ids of what was downloaded before."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return frozenset(repository.repo_id for repository in scan_cache_dir().repos)
    except CacheNotFound:
        return frozenset()


def _source(kind: str, name: str, here: frozenset[str]) -> str:
    if "/" not in name:
        return f"{kind}: files of your own ({name})"
    return f"{kind}: {name}, {'downloaded before' if name in here else 'to be downloaded'}"
