"""What is to be asked: a task, a method and a protocol, and all that the answers depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analysis import provenance
from analysis.asking.rows import VANILLA, Configuration
from analysis.scoring.metrics import metric
from analysis.tasks import Task, TaskItem
from lightkv.contract.compressor import Compressor
from lightkv.prompting import QUESTION_FIRST

if TYPE_CHECKING:
    from lightkv import VLM

Methods = Mapping[str, Compressor | None]
Jobs = Sequence[tuple[str, "Job"]]

_ASKING: Final = frozenset(
    ("lightkv.loading", "lightkv.vlm", "lightkv.protocols", "analysis.asking.answering")
)
"""Modules that every answer depends on, with all that they import."""


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
        UnsupportedError: The method hides a parameter, so its results can't be told from those of
            another.
    """
    return Configuration(
        model=vlm.name,
        fingerprint=vlm.fingerprint,
        method=VANILLA if compressor is None else type(compressor).__name__,
        parameters=VANILLA if compressor is None else provenance.described(compressor),
        task=given.name,
        task_fingerprint=given.fingerprint,
        protocol=protocol,
        metric=given.metric,
        seed=seed,
        max_new_tokens=given.max_new_tokens if max_new_tokens is None else max_new_tokens,
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm.attention,
        device=vlm.device.type,
        revision=provenance.code_of(
            [compressor, given, metric(given.metric).scores, vlm.family], _ASKING
        ),
        versions=json.dumps(provenance.answering_versions(), sort_keys=True),
    )


def _length(item: TaskItem) -> tuple[int, int, int]:
    """Sort key: images first, they make the longest prompts; the index breaks ties."""
    return len(item.images), len(item.question), item.index
