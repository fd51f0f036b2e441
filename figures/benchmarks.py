"""The papers' own benchmarks in their tables: what is asked, how much, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from figures.artefacts import artefact, artefacts
from figures.contract import Artefact
from figures.making import study_of
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    from analysis.tasks import Task

LMMS: Final = "lmms:"
"""How benchmarks are named as tasks."""

ALL: Final = 0
"""Questions per task: all of them."""


@dataclass(frozen=True)
class Extent:
    """How much is to be asked.

    Attributes:
        questions: Of each benchmark, by its name.
        settings: Methods at a budget that are asked all of them, the full cache included.
        seconds: A question takes, by a first batch.
    """

    questions: Mapping[str, int]
    settings: int
    seconds: float

    @property
    def asks(self) -> int:
        """Answers of all settings."""
        return self.settings * sum(self.questions.values())


def targets(artefact_ids: Sequence[str]) -> list[Artefact]:
    """The artefacts of some ids, all of which can be made of published benchmarks.

    Raises:
        UnknownNameError: An id is unknown.
        InvalidValueError: One can't, or no id is given.
    """
    able = ", ".join(one.id for one in artefacts() if one.benchmarks)
    if not artefact_ids:
        raise InvalidValueError("--benchmarks", "of all artefacts", f"with {able}")
    named = [artefact(one) for one in artefact_ids]
    for one in named:
        if not one.benchmarks:
            allowed = f"with {able}: the scores of other tables are no means of questions, or come "
            allowed += "from judges or videos; lightkv evaluate --task lmms:NAME has those it can"
            raise InvalidValueError("--benchmarks", one.id, allowed)
    return named


def tasks_of(named: Sequence[Artefact], full: bool, folder: Path | None) -> list[str]:
    """The benchmarks of some artefacts as tasks.

    Args:
        named: Of :func:`targets`.
        full: Whole benchmarks, not their lite parts.
        folder: Task files that stand for those of the harness, named as they are; None for its.

    Raises:
        InputError: The folder lacks one.
    """
    wanted = dict.fromkeys(one for target in named for one in target.benchmarks)
    names = [one.full if full else one.lite for one in wanted]
    if folder is None:
        return [LMMS + name for name in names]
    files = [folder.resolve() / f"{name}.yaml" for name in names]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is not there; the tasks are {', '.join(names)}")
    return [f"{LMMS}{file}" for file in files]


def sources(tasks: Sequence[str], model: str | None) -> list[str]:
    """What is needed of data sets and model, a line each: here, or to be downloaded.

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
    named: Sequence[Artefact],
    tasks: Sequence[str],
    options: Mapping[str, Any],
    results: str | Path,
    tell: Callable[[str], None],
) -> Extent:
    """Load the benchmarks and ask a first batch, whose answers are kept.

    Args:
        named: What is to be made of them.
        tasks: Of :func:`tasks_of`.
        options: model, device, dtype, samples and seed, as far as they are set.
        results: Folder of stored results.
        tell: Takes what a benchmark remarks.

    Raises:
        InputError: A data set can't be loaded.
        LightKVError: The model can't be, or can't answer.
    """
    import torch

    from analysis.tasks import task

    loaded = [task(name) for name in tasks]
    for remark in (note for one in loaded for note in one.notes):
        tell(remark)
    samples, seed = options.get("samples") or None, options.get("seed", 0)
    questions = {one.name: len(one.items(samples, seed)) for one in loaded}
    seconds = _first_batch(loaded[0], questions[loaded[0].name], options, results)
    # The notebooks load the model anew: a device need not hold it twice.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    settings = len({one for target in named for one in _settings(target)})
    return Extent(questions, 1 + settings, seconds)


def _first_batch(first: Task, count: int, options: Mapping[str, Any], results: str | Path) -> float:
    """Seconds that a question takes with the full cache, in one batch of a benchmark."""
    from analysis.asking.evaluation import DEFAULT_BATCH_SIZE, evaluate
    from analysis.asking.jobs import Shard
    from analysis.asking.opening import open_model
    from analysis.asking.store import Store

    with Store(results) as store:
        vlm = open_model(
            store,
            options.get("model"),
            device=options.get("device", "cpu"),
            dtype=options.get("dtype"),
            attention="sdpa",
        )
        rows = evaluate(
            vlm,
            [first],
            {"vanilla": None},
            samples=options.get("samples") or None,
            seed=options.get("seed", 0),
            store=store,
            progress=False,
            shard=Shard(1, -(-count // DEFAULT_BATCH_SIZE)),
        )
    return float(rows["seconds"].mean())


def _settings(target: Artefact) -> list[tuple[str, float]]:
    """Methods and budgets that the study of an artefact compares."""
    study = study_of(target)
    defaults = study.parameters if study is not None else {}
    options = {**defaults, **target.options}
    return [(name, share) for name in options["methods"] for share in options["retentions"]]


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
